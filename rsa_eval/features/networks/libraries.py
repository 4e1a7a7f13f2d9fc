"""Say which name of another library a user meant."""

import difflib
from collections.abc import Iterable
from typing import Any

from rsa_pretrain.plumbing.errors import UserError


def unknown_name(library: Any, kind: str, name: str, known: Iterable[str]) -> UserError:
    """Return the error about a name that a library does not know.

    Args:
        library: The package.
        kind: Kind of thing that the name would be.
        name: The name.
        known: Names that the library knows, of which the nearest is proposed.
    """
    nearest = difflib.get_close_matches(name, [*known], n=1)
    hint = f"; the nearest is '{nearest[0]}'" if nearest else ""
    return UserError(f"{library.__name__} {library.__version__} has no {kind} '{name}'{hint}")
