"""Shorten a list of names for a message."""

from collections.abc import Sequence


def first_of(names: Sequence[str], limit: int = 5) -> str:
    """Return the first names, and the number of further ones."""
    more = len(names) - limit
    return ", ".join(names[:limit]) + (f", and {more:,} more" if more > 0 else "")
