"""Import the packages of optional extras, or say which extra installs them."""

from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from rsa_pretrain.plumbing.errors import UserError

EXTRA_OF = {
    "pycocotools": "detect",
    "webdataset": "shards",
    "braceexpand": "shards",
    "huggingface_hub": "hub",
    "wandb": "wandb",
    "timm": "networks",
    "transformers": "networks",
    "onnx": "export",
    "onnxruntime": "export",
    "onnxscript": "export",
    "imagecorruptions": "robustness",
    "faster_coco_eval": "fast-eval",
    "h5py": "hdf5",
}
"""Import name of each optional package → the extra of this toolkit that installs it."""


def import_extra(package: str, needed_by: str) -> Any:
    """Import an optional package at its first use.

    Args:
        package: One of ``EXTRA_OF``.
        needed_by: What needs it, for the error.

    Raises:
        UserError: If it is not installed, or broken.
    """
    try:
        return import_module(package)
    except ImportError as error:
        raise UserError(
            f"{needed_by} needs the package {package} ({error}); {how_to_install([package])}"
        ) from None


def missing_packages(packages: Sequence[str]) -> list[str]:
    """Return the packages that are not installed."""
    return [name for name in packages if find_spec(name) is None]


def check_packages(packages: Sequence[str], needed_by: str) -> None:
    """Refuse, before any work, what needs a package that is not installed.

    Args:
        packages: Import names; those of no extra are installed by that name.
        needed_by: What needs them, for the error.

    Raises:
        UserError: If one is missing.
    """
    missing = missing_packages(packages)
    if missing:
        raise UserError(f"{needed_by} needs {', '.join(missing)}; {how_to_install(missing)}")


def how_to_install(packages: Sequence[str]) -> str:
    """Return the command that installs packages: by the toolkit's extras, or by their names."""
    extras = sorted({EXTRA_OF[name] for name in packages if name in EXTRA_OF})
    others = [name for name in packages if name not in EXTRA_OF]
    toolkit = [f"'rsa-toolkit[{','.join(extras)}]'"] if extras else []
    return " ".join(["pip install", *toolkit, *others])


def missing_extra(error: Exception) -> str | None:
    """Return what to install if an import failed for want of an extra; None otherwise."""
    name = (getattr(error, "name", None) or "").partition(".")[0]
    if not isinstance(error, ModuleNotFoundError) or name not in EXTRA_OF:
        return None
    return f"this needs the package {name}, which is not installed; {how_to_install([name])}"
