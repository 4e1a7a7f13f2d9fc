"""Import the packages of optional extras, or say which extra installs them."""

from importlib import import_module
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
            f"{needed_by} needs the package {package} ({error}); {_install(package)}"
        ) from None


def missing_extra(error: Exception) -> str | None:
    """Return what to install if an import failed for want of an extra; None otherwise."""
    name = (getattr(error, "name", None) or "").partition(".")[0]
    if not isinstance(error, ModuleNotFoundError) or name not in EXTRA_OF:
        return None
    return f"this needs the package {name}, which is not installed; {_install(name)}"


def _install(package: str) -> str:
    return f"pip install 'rsa-toolkit[{EXTRA_OF[package]}]'"
