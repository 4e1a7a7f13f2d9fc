"""Check that the toolkit's import names lead to its own packages."""

from importlib.util import find_spec
from pathlib import Path

from rsa_pretrain.plumbing.errors import UserError

PACKAGES = ("rsa_pretrain", "rsa_eval", "detection")
_FOLDER = Path(__file__).resolve().parents[2]
_OWN = "rsa_pretrain"  # occurs in each package's first file


def check_import_names() -> None:
    """Refuse to start where another package has the name of one of ours, such as ``detection``.

    Raises:
        UserError: If the package is missing; or names the file in the way, and the distribution
            it belongs to.
    """
    for name in PACKAGES:
        expected = _FOLDER / name / "__init__.py"
        found = find_spec(name)
        if found is None or found.origin is None:  # a folder without a first file has no origin
            raise UserError(
                f"this toolkit's package '{name}' is missing or incomplete in '{_FOLDER}'; install "
                "it again: pip install --force-reinstall --no-deps rsa-toolkit"
            )
        origin = Path(found.origin).resolve()
        if origin != expected:
            raise _taken(name, origin, f"expected this toolkit's '{expected}'")
        if _OWN not in expected.read_text(encoding="utf-8"):
            raise _taken(name, origin, "written over this toolkit's")


def _taken(name: str, origin: Path, instead: str) -> UserError:
    from importlib.metadata import packages_distributions  # slow: needed only here

    others = {*packages_distributions().get(name, ())} - {"rsa-toolkit"}
    owner = f" of {' and '.join(sorted(others))}" if others else ""
    return UserError(
        f"the import name '{name}' leads to '{origin}'{owner}, {instead}; install rsa-toolkit "
        "where no other package has that name, or start it in another folder"
    )
