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
        UserError: Names the file in the way, and the distribution it belongs to.
    """
    for name in PACKAGES:
        expected = _FOLDER / name / "__init__.py"
        found = find_spec(name)
        origin = None if found is None or found.origin is None else Path(found.origin).resolve()
        if origin != expected or _OWN not in expected.read_text(encoding="utf-8"):
            from importlib.metadata import packages_distributions  # slow: needed only here

            others = {*packages_distributions().get(name, ())} - {"rsa-toolkit"}
            owner = f" of {' and '.join(sorted(others))}" if others else ""
            raise UserError(
                f"the import name '{name}' leads to '{origin}'{owner}, expected this toolkit's "
                f"'{expected}'; install rsa-toolkit where no other package has that name, or start "
                "it in another folder"
            )
