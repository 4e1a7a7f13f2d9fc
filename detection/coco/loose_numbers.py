"""Read numbers that an export wrote as text or with decimals."""

import math
import re
from typing import Any

NUMBER_TYPES = frozenset({int, float})
_WHOLE = re.compile(r"\s*([+-]?[0-9]{1,15})(\.0*)?\s*")
# Above this, a float may differ from the whole number that was written.
_LARGEST_EXACT = 2.0**53


def as_whole(value: Any) -> int | None:
    """Return the whole number that a value is or spells, or None."""
    if type(value) is int:
        return value
    if type(value) is float and value.is_integer() and abs(value) <= _LARGEST_EXACT:
        return int(value)
    found = _WHOLE.fullmatch(value) if isinstance(value, str) else None
    return None if found is None else int(found[1])


def as_number(value: Any) -> float | None:
    """Return the finite number that a value is or spells, or None."""
    if type(value) in NUMBER_TYPES:
        return float(value) if isinstance(value, float) else value
    if not isinstance(value, str):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
