"""Test the checks for boxes that do not fit their masks and for objects annotated twice."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as mask_codec

from detection.coco.sets import CocoSet
from detection.survey.box_checks import (
    BESIDE,
    EMPTY,
    LOOSE,
    TWICE,
    compare_with_masks,
    find_repeats,
)
from detection.survey.findings import SetFindings

WIDTH, HEIGHT = 200, 120
PLACE = [60.0, 40.0, 50.0, 30.0]

Tree = dict[str, Any]


def _outline(x: float, y: float, w: float, h: float) -> list[list[float]]:
    return [[x, y, x + w, y, x + w, y + h, x, y + h]]


def _code(x: int, y: int, w: int, h: int) -> Tree:
    mask = np.zeros((HEIGHT, WIDTH), np.uint8, order="F")
    mask[y : y + h, x : x + w] = 1
    return {"size": [HEIGHT, WIDTH], "counts": mask_codec.encode(mask)["counts"].decode("ascii")}


MASKS = {"polygon": _outline(*PLACE), "code": _code(60, 40, 50, 30)}


def _entry(number: int, **changes: Any) -> Tree:
    return {
        "id": number,
        "image_id": 1,
        "category_id": 1,
        "bbox": PLACE,
        "iscrowd": 0,
        "segmentation": MASKS["polygon"],
        **changes,
    }


def _set(*annotations: Tree) -> SetFindings:
    images = [
        {"id": number, "file_name": f"{number}.png", "height": HEIGHT, "width": WIDTH}
        for number in (1, 2)
    ]
    categories = [{"id": number, "name": str(number)} for number in (1, 2)]
    tree = {"images": images, "annotations": list(annotations), "categories": categories}
    return SetFindings("train", CocoSet(Path("set.json"), Path("images"), tree))


def _compared(**changes: Any) -> SetFindings:
    check = _set(_entry(7, **changes))
    compare_with_masks(check)
    return check


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize(
    "box",
    [
        PLACE,
        [62.0, 38.0, 50.0, 30.0],
        [60, 40, 51, 31],
        # A tenth of 50 across and of 30 down.
        [65.0, 43.0, 50.0, 30.0],
    ],
)
def test_boxes_around_their_masks_are_fine(box: list[float], mask: str) -> None:
    """Rounding, a last pixel counted in and drawing by hand are no finding."""
    check = _compared(bbox=box, segmentation=MASKS[mask])
    assert (check.errors, check.notes) == ({}, {})


@pytest.mark.parametrize(("off", "notes"), [(2.0, {}), (2.1, {LOOSE: ["annotation 7"]})])
def test_small_masks_have_two_pixels_to_spare(off: float, notes: dict[str, list[str]]) -> None:
    """A tenth of a small object's side is less than the rounding of two tools."""
    check = _compared(
        bbox=[60.0 + off, 40.0, 9.0, 9.0], segmentation=_outline(60.0, 40.0, 9.0, 9.0)
    )
    assert (check.errors, check.notes) == ({}, notes)


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize(
    "box",
    [
        [120.0, 40.0, 50.0, 30.0],  # 60 pixels off
        [86.0, 40.0, 50.0, 30.0],
        [60.0, 56.0, 50.0, 30.0],
        [20.0, 10.0, 50.0, 40.0],
    ],
)
def test_boxes_beside_their_masks_are_errors(box: list[float], mask: str) -> None:
    """The annotation is named with its box and its mask's, as they lie in the image."""
    check = _compared(bbox=box, segmentation=MASKS[mask])
    where = ", ".join(f"{value:g}" for value in box)
    assert check.errors == {BESIDE: [f"annotation 7 (box [{where}], mask [60, 40, 50, 30])"]}
    assert check.notes == {}


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize(
    "box",
    [
        [50.0, 30.0, 70.0, 50.0],  # all of an object that is partly hidden
        [60.0, 40.0, 20.0, 10.0],  # its visible part
        [65.5, 40.0, 50.0, 30.0],
        [60.0, 36.0, 50.0, 34.0],
        [60.0, 36.5, 50.0, 30.0],
        [60.0, 40.0, 56.0, 30.0],
        [60.0, 40.0, 50.0, 26.0],
        [84.0, 40.0, 50.0, 30.0],
    ],
)
def test_loose_boxes_are_notes(box: list[float], mask: str) -> None:
    """Any side may be off; a box that shares half with its mask may be meant."""
    check = _compared(bbox=box, segmentation=MASKS[mask])
    assert check.errors == {}
    assert check.notes == {LOOSE: ["annotation 7"]}


@pytest.mark.parametrize(
    ("box", "form"),
    [
        ([60.0, 40.0, 110.0, 70.0], "[x0, y0, x1, y1], expected"),
        ([85.0, 55.0, 50.0, 30.0], "[centre x, centre y, width, height], expected"),
        ([0.3, 1 / 3, 0.25, 0.25], "[x, y, width, height] in fractions of the image"),
    ],
)
def test_one_box_in_another_form_is_told(box: list[float], form: str) -> None:
    """A box that fits its mask only when read otherwise says how."""
    check = _compared(bbox=box)
    ((what, entries),) = check.errors.items()
    assert what.startswith(f"annotations whose bbox seems to be {form}")
    assert entries == ["annotation 7"]
    assert check.notes == {}


def test_another_form_must_lie_in_the_image() -> None:
    """Pixels taken for fractions are far outside, not cut off to a mask of the whole image."""
    whole = [0.0, 0.0, float(WIDTH), float(HEIGHT)]
    check = _compared(bbox=[60.0, 0.0, WIDTH, HEIGHT], segmentation=_outline(*whole))
    assert check.errors == {}
    assert check.notes == {LOOSE: ["annotation 7"]}


@pytest.mark.parametrize(
    "mask",
    [
        [[60.0, 40.0, 110.0, 40.0, 90.0, 40.0]],
        {"size": [HEIGHT, WIDTH], "counts": [WIDTH * HEIGHT]},
        _outline(250.0, 40.0, 50.0, 30.0),
    ],
)
def test_masks_without_area_are_notes(mask: Any) -> None:
    """A line, no pixel, or nothing inside the image has no box to compare with."""
    check = _compared(segmentation=mask)
    assert check.errors == {}
    assert check.notes == {EMPTY: ["annotation 7"]}


@pytest.mark.parametrize(
    "changes",
    [
        {"iscrowd": 1, "bbox": [0.0, 0.0, 9.0, 9.0]},
        {"segmentation": []},
        {"bbox": [60.0, 40.0, 0.0, 30.0]},
        {"bbox": [160.0, 40.0, 90.0, 30.0], "segmentation": _outline(160.0, 40.0, 40.0, 30.0)},
        {"bbox": [160.0, 40.0, 40.0, 30.0], "segmentation": _outline(160.0, 40.0, 90.0, 30.0)},
    ],
)
def test_what_is_not_compared(changes: Tree) -> None:
    """Crowds, boxes alone, boxes without area, and what lies outside the image."""
    check = _compared(**changes)
    assert (check.errors, check.notes) == ({}, {})


@pytest.mark.parametrize(
    ("changes", "is_repeat"),
    [
        ({}, True),
        ({"segmentation": MASKS["code"]}, True),
        ({"segmentation": []}, True),
        ({"bbox": [60.2, 40.0, 50.0, 30.0]}, True),
        ({"bbox": [59.8, 40.0, 50.0, 30.0]}, True),
        ({"bbox": [60.0, 40.0, 50.0, 29.5]}, False),
        ({"bbox": [60.0, 41.0, 50.0, 30.0]}, False),
        ({"segmentation": [[60.0, 40.0, 110.0, 40.0, 60.0, 70.0]]}, False),
        ({"category_id": 2}, False),
        ({"image_id": 2}, False),
        ({"iscrowd": 1}, False),
    ],
)
def test_repeats_have_the_same_box_and_mask(changes: Tree, is_repeat: bool) -> None:
    """Of one image and category; a few repeats are a note that names both annotations."""
    places = [[10.0 + 20 * number, 5.0, 15.0, 15.0] for number in range(4)]
    others = [
        _entry(number, bbox=place, segmentation=_outline(*place))
        for number, place in enumerate(places, start=10)
    ]
    check = _set(_entry(3), *others, _entry(7, **changes))
    find_repeats(check)
    assert check.errors == {}
    first, later = (7, 3) if changes.get("bbox", PLACE)[0] < PLACE[0] else (3, 7)
    name = f"annotation {later} (as annotation {first})"
    assert check.notes == ({TWICE: [name]} if is_repeat else {})


@pytest.mark.parametrize("num_repeats", [2, 3])
def test_a_set_written_twice_is_an_error(num_repeats: int) -> None:
    """With half of the objects twice, or some many times, no detector can find what is there."""
    places = [[10.0 + 20 * number, 5.0, 15.0, 15.0] for number in range(5)]
    entries = [
        _entry(number, bbox=place, segmentation=[]) for number, place in enumerate(places, start=1)
    ]
    copies = [{**entry, "id": entry["id"] + 10} for entry in entries[:num_repeats]]
    check = _set(*entries, *copies)
    find_repeats(check)
    found = check.notes if num_repeats == 2 else check.errors
    names = [f"annotation {n + 10} (as annotation {n})" for n in range(1, num_repeats + 1)]
    assert found == {TWICE: names}

    check = _set(*(_entry(number) for number in range(1, 5)))
    find_repeats(check)
    assert check.errors == {TWICE: [f"annotation {n} (as annotation 1)" for n in (2, 3, 4)]}
