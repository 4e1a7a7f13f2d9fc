"""Import the libraries of other networks, or say how to install them."""

import difflib
import importlib
from collections.abc import Iterable
from typing import Any

from rsa_pretrain.plumbing.errors import UserError


def required(package: str, network: str) -> Any:
    """Import a library at its first use.

    Args:
        package: Its name.
        network: Name of the network that needs it.

    Raises:
        UserError: If it is missing or broken.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise UserError(
            f"{network} needs the package {package} ({error}); install it with pip install "
            f"{package}, or with this toolkit's extra networks"
        ) from None


def nearest_to(name: str, known: Iterable[str]) -> str:
    """Return a hint at the nearest known name, if there is one near."""
    found = difflib.get_close_matches(name, [*known], n=1)
    return f"; the nearest is '{found[0]}'" if found else ""
