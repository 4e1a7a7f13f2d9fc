"""Names that a package offers, imported at their first use.

``import rsa_eval`` therefore costs nothing; ``from rsa_eval import extract`` imports torch.
"""

from collections.abc import Callable, Mapping
from importlib import import_module


def lazy_names(
    package: str, homes: Mapping[str, str]
) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """Return ``__getattr__`` and ``__dir__`` of a package.

    Args:
        package: Its name.
        homes: The modules that define what it offers → the names, separated by spaces.
    """
    home_of = {name: module for module, names in homes.items() for name in names.split()}

    def find(name: str) -> object:
        if name not in home_of:
            raise AttributeError(f"module '{package}' has no attribute '{name}'")
        found: object = getattr(import_module(home_of[name]), name)
        return found

    return find, lambda: sorted(home_of)
