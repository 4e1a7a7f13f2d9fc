"""Read numbers that an export wrote as text or with decimals."""

import math
import re
from typing import Any

NUMBER_TYPES = frozenset({int, float})
_WHOLE = re.compile(r"\s*([+-]?[0-9]{1,15})(\.0*)?\s*")
_FLAGS = {"": False, "0": False, "false": False, "1": True, "true": True}
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


def as_flag(value: Any) -> bool | None:
    """Return the truth value that 0, 1, true, false or, for no, nothing stands for, or None."""
    if value is None:
        return False
    if isinstance(value, str):
        return _FLAGS.get(value.strip().lower())
    return bool(value) if isinstance(value, int | float) and value in (0, 1) else None


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
