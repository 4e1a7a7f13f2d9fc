from typing import Any

from detection.coco.matching import match

BOX = [10.0, 10.0, 20.0, 20.0]


def _entry(box: list[float], category: int = 1, **more: Any) -> dict[str, Any]:
    return {"bbox": box, "category_id": category, **more}


def test_matching_by_hand() -> None:
    """An object is taken once, by the best score; category and overlap must fit; crowds give way.

    The third box overlaps the object by 10 of 30 columns, IoU 1/3.
    """
    truth = [_entry(BOX), _entry([60.0, 60.0, 30.0, 30.0], iscrowd=1)]
    found = [
        _entry(BOX, category=2),
        _entry(BOX),
        _entry([20.0, 10.0, 20.0, 20.0]),
        _entry([11.0, 10.0, 20.0, 20.0]),
        _entry([60.0, 60.0, 10.0, 10.0]),
        _entry([62.0, 62.0, 10.0, 10.0]),
    ]
    assert match(truth, found) == [None, 0, None, None, 1, 1]
    assert match([], found) == [None] * 6
    assert match(truth, []) == []


def test_the_larger_overlap_is_taken() -> None:
    """Of two objects a detection takes the nearer one and leaves the other."""
    truth = [_entry([13.0, 10.0, 20.0, 20.0]), _entry(BOX)]
    assert match(truth, [_entry(BOX), _entry([14.0, 10.0, 20.0, 20.0])]) == [1, 0]
