from typing import Any

import pytest

from detection.coco.loose_numbers import as_flag, as_number, as_whole


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        *((12, 12), (-3, -3), (12.0, 12), ("12", 12), (" 012 ", 12), ("12.0", 12), ("-7.", -7)),
        *((12.5, None), ("12.5", None), ("", None), ("a1", None), ("1e3", None), ("١", None)),
        *((True, None), (None, None), ([], None), (float("nan"), None), (float("inf"), None)),
        *((1e300, None), ("9" * 16, None)),
    ],
)
def test_whole_numbers_are_exact_or_none(value: Any, expected: int | None) -> None:
    """Text and decimals count where they stand for exactly one whole number."""
    found = as_whole(value)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        *((3, 3), (3.5, 3.5), ("3.5", 3.5), ("-1e2", -100.0), (" 2 ", 2.0)),
        *(("nan", None), ("inf", None), ("wide", None), (None, None), (True, None), ({}, None)),
    ],
)
def test_numbers_are_finite_or_none(value: Any, expected: float | None) -> None:
    """Text counts where it spells a finite number."""
    assert as_number(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        *((0, False), (1, True), (1.0, True), (False, False), (True, True), (None, False)),
        *(("", False), ("0", False), (" 1 ", True), ("True", True), ("false", False)),
        *((2, None), (-1, None), (0.5, None), (float("nan"), None), ([], None), ({}, None)),
        *(("yes", None), ("1.0", None), ("2", None)),
    ],
)
def test_flags_are_0_or_1(value: Any, expected: bool | None) -> None:
    """Nothing else is taken for a no."""
    assert as_flag(value) is expected
