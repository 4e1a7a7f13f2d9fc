"""Find the configs shipped with the toolkit by name, from any folder."""

import difflib
from functools import cache
from pathlib import Path

from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.user_paths import real_path

_PACKAGE = Path(__file__).parents[2]
FOLDER = next(
    folder for folder in (_PACKAGE / "configs", _PACKAGE.parent / "configs") if folder.is_dir()
)
"""``configs/``: inside the package if installed from a wheel, beside it in a checkout."""

# A name may omit this: `cifar10/rsa` is pretrain/cifar10/rsa.yaml.
_SILENT = ("pretrain", "eval", "detection")
_NUM_NEAREST = 3


@cache
def shipped_configs() -> dict[str, Path]:
    """Return the file of each shipped config by name, in the order of their folders."""
    found = {}
    for path in sorted(FOLDER.rglob("*.yaml")):
        parts = path.relative_to(FOLDER).with_suffix("").parts
        found["/".join(parts[parts[0] in _SILENT :])] = path
    return found


def name_of(path: Path) -> str:
    """Return the name of a shipped config, or the path of any other."""
    names = {shipped: name for name, shipped in shipped_configs().items()}
    return names.get(real_path(path), str(path))


def find_config(config: Path, beside: Path = Path()) -> Path:
    """Return the file of a config.

    Args:
        config: A path, or else the name of a shipped config.
        beside: Folder that a relative path starts from.

    Raises:
        UserError: If it is neither; the nearest names are listed.
    """
    path = beside / config
    if path.is_file():
        return path
    shipped = shipped_configs()
    name = config.as_posix()
    if name in shipped:
        return shipped[name]
    if path.exists():
        raise UserError(f"cannot read config '{path}': not a file")
    nearest = difflib.get_close_matches(name.removesuffix(".yaml"), shipped, _NUM_NEAREST)
    hint = f"nearest are {', '.join(nearest)}" if nearest else "rsa-pretrain configs lists them"
    raise UserError(f"cannot read config '{path}': no such file, nor a shipped config; {hint}")
