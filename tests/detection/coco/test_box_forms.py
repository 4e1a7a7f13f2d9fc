"""Files with boxes in another form than COCO's are refused by every reader."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as mask_codec

from detection.coco.box_forms import FAULTS_OF_ALL
from detection.coco.sets import open_coco
from detection.coco.validate import sort_out
from rsa_pretrain.plumbing.errors import UserError

WIDTH, HEIGHT = 200, 120
# x, y, width, height.
BOXES = [[20, 10, 50, 40], [90, 60, 30, 50], [140, 5, 45, 100], [60, 70, 24, 30], [5, 80, 80, 30]]
# Near the first corner: read as sides, the other corner stays in the image.
NEAR = [[20, 10, 50, 40], [30, 12, 40, 40], [15, 5, 45, 50], [40, 30, 50, 20]]

Tree = dict[str, Any]
Box = list[float]
Change = Callable[..., Box]

FORMS: dict[str, Change] = {
    "[x0, y0, x1, y1]": lambda x, y, w, h: [x, y, x + w, y + h],
    "[y0, x0, y1, x1]": lambda x, y, w, h: [y, x, y + h, x + w],
    "[centre x, centre y, width, height]": lambda x, y, w, h: [x + w / 2, y + h / 2, w, h],
}


def _in_fractions(box: Box, *, rows_first: bool = False) -> Box:
    sides = (HEIGHT, WIDTH) if rows_first else (WIDTH, HEIGHT)
    return [value / side for value, side in zip(box, sides * 2, strict=True)]


def _outline(x: float, y: float, w: float, h: float) -> list[list[float]]:
    return [[x, y, x + w, y, x + w, y + h, x, y + h]]


def _code(x: int, y: int, w: int, h: int) -> Tree:
    mask = np.zeros((HEIGHT, WIDTH), np.uint8, order="F")
    mask[y : y + h, x : x + w] = 1
    return {"size": [HEIGHT, WIDTH], "counts": mask_codec.encode(mask)["counts"].decode("ascii")}


def _nothing(*_: float) -> list[Any]:
    return []


def _tree(boxes: list[Box], masks: list[Any]) -> Tree:
    return {
        "images": [{"id": 1, "file_name": "1.png", "height": HEIGHT, "width": WIDTH}],
        "annotations": [
            {
                "id": number,
                "image_id": 1,
                "category_id": 1,
                "bbox": box,
                "area": 100.0,
                "iscrowd": 0,
                "segmentation": mask,
            }
            for number, (box, mask) in enumerate(zip(boxes, masks, strict=True), start=1)
        ],
        "categories": [{"id": 1, "name": "a"}],
    }


def _faults(tree: Tree) -> dict[str, list[str]]:
    kinds: dict[str, list[str]] = {}
    for fault in sort_out(tree)[1]:
        kinds.setdefault(fault.what, []).append(fault.entry)
    return kinds


ALL = [f"annotation {number}" for number in range(1, len(BOXES) + 1)]


@pytest.mark.parametrize("draw", [_outline, _code])
@pytest.mark.parametrize("relative", [False, True])
@pytest.mark.parametrize("form", FORMS)
def test_masks_tell_the_form(form: str, relative: bool, draw: Callable[..., Any]) -> None:
    """Boxes that fit their masks in one form alone are told by its name, each annotation named."""
    boxes = [FORMS[form](*box) for box in BOXES]
    if relative:
        boxes = [_in_fractions(box, rows_first=form.startswith("[y0")) for box in boxes]
    ((what, entries),) = _faults(_tree(boxes, [draw(*box) for box in BOXES])).items()
    unit = " in fractions of the image" if relative else ""
    assert what.startswith(f"annotations whose bbox seems to be {form}{unit}, expected [x, y, wid")
    assert ("multiply by the image's width and height" in what) == relative
    assert what in FAULTS_OF_ALL
    assert entries == ALL


@pytest.mark.parametrize(
    ("draw", "name"), [(_outline, "[x, y, width, height] in"), (_code, "[x, y"), (_nothing, "in")]
)
def test_fractions_are_told_without_masks(draw: Callable[..., Any], name: str) -> None:
    """Boxes of which nothing is above 1 are fractions; in which form, the masks tell."""
    tree = _tree([_in_fractions(box) for box in BOXES], [draw(*box) for box in BOXES])
    ((what, entries),) = _faults(tree).items()
    assert what.startswith(f"annotations whose bbox seems to be {name}")
    assert "fractions of the image" in what
    assert entries == ALL


def test_one_box_in_pixels_shows_that_the_others_are_no_fractions() -> None:
    """Without masks, small boxes among others are no sign."""
    boxes = [*map(_in_fractions, BOXES[1:]), BOXES[0]]
    assert _faults(_tree(boxes, [[]] * len(boxes))) == {}
    assert _faults(_tree([[0, 0, 0, 0]] * 3, [[]] * 3)) == {}


def test_polygons_of_fractions_are_told() -> None:
    """Polygons of which no coordinate is above 1 are named, with those that have them."""
    masks = [[_in_fractions(_outline(*box)[0][:4])] for box in BOXES]
    masks = [[[*part[0], *part[0][:2]]] for part in masks]
    tree = _tree(BOXES, [*masks[:-1], []])
    ((what, entries),) = _faults(tree).items()
    assert "polygons seem to be in fractions of the image" in what
    assert entries == ALL[:-1]
    tree["annotations"][0]["segmentation"] = _outline(*BOXES[0])
    assert _faults(tree) == {}
    assert _faults(_tree(BOXES, [[[0.0] * 6]] * len(BOXES))) == {}


@pytest.mark.parametrize(
    "change",
    [
        lambda x, y, w, h: [x, y, w, h],
        lambda x, y, w, h: [x - 2, y + 2, w + 4, h - 4],
        lambda x, y, w, h: [x, y, 0.95 * w, 0.95 * h],
        lambda x, y, w, h: [x + 30, y, w, h],
        lambda x, y, w, h: [0, 0, WIDTH, HEIGHT],
    ],
)
@pytest.mark.parametrize("draw", [_outline, _code])
def test_coco_s_form_is_not_accused(change: Change, draw: Callable[..., Any]) -> None:
    """Boxes that are tight, loose, shifted or too large are no others' form."""
    tree = _tree([change(*box) for box in BOXES], [draw(*box) for box in BOXES])
    assert _faults(tree) == {}


def test_objects_in_the_first_corner_fit_two_forms() -> None:
    """They are no sign by themselves, and hide no others."""
    corner = [[0, 0, 50, 40], [3, 2, 90, 60]] * 10
    boxes = [FORMS["[x0, y0, x1, y1]"](*box) for box in corner]
    masks = [_outline(*box) for box in corner]
    assert _faults(_tree(boxes, masks)) == {}
    boxes += [FORMS["[x0, y0, x1, y1]"](*box) for box in BOXES]
    masks += [_outline(*box) for box in BOXES]
    ((what, entries),) = _faults(_tree(boxes, masks)).items()
    assert "[x0, y0, x1, y1]" in what
    assert len(entries) == 25


def test_crowds_tell_nothing() -> None:
    """Their boxes are named with the others, but not looked at."""
    boxes = [FORMS["[x0, y0, x1, y1]"](*box) for box in BOXES]
    tree = _tree([*boxes, [0, 0, 9, 9]], [*(_outline(*box) for box in BOXES), _code(90, 9, 60, 60)])
    assert _faults(tree) == {}
    tree["annotations"][-1]["iscrowd"] = 1
    ((what, entries),) = _faults(tree).items()
    assert "[x0, y0, x1, y1]" in what
    assert entries == [*ALL, "annotation 6"]


def test_two_boxes_in_another_form_stop_nothing() -> None:
    """A claim about a whole file needs three that fit in no other way."""
    boxes = [FORMS["[x0, y0, x1, y1]"](*box) for box in BOXES]
    masks = [_outline(*box) for box in BOXES]
    assert _faults(_tree(boxes[:2], masks[:2])) == {}
    assert len(_faults(_tree(boxes[:3], masks[:3]))) == 1


def test_masks_overrule_boxes_that_leave_the_image() -> None:
    """Boxes that could be corners, and leave their images, are COCO's where most fit the masks."""
    shapes = [[40, 30, 150, 80]] * 6
    tree = _tree([*shapes, *[[40, 30, 190, 110]] * 4], [_outline(*shapes[0])] * 10)
    assert _faults(tree) == {}
    for entry in tree["annotations"]:
        entry["segmentation"] = []
    ((what, _),) = _faults(tree).items()
    assert "[x0, y0, x1, y1]" in what


@pytest.mark.parametrize(
    ("form", "area", "is_told"),
    [
        ("[x0, y0, x1, y1]", lambda x, y, w, h: w * h, True),
        ("[x0, y0, x1, y1]", lambda x, y, w, h: 1.01 * w * h, True),
        ("[x0, y0, x1, y1]", lambda x, y, w, h: 0.8 * w * h, False),
        ("[x0, y0, x1, y1]", lambda x, y, w, h: (x + w) * (y + h), False),
        ("[x, y, width, height]", lambda x, y, w, h: w * h, False),
    ],
)
def test_areas_tell_corners_without_masks(
    form: str, area: Callable[..., float], is_told: bool
) -> None:
    """Corners that stay in their images are told by areas that are right."""
    tree = _tree([FORMS.get(form, lambda *box: list(box))(*box) for box in NEAR], [[]] * 4)
    for entry, box in zip(tree["annotations"], NEAR, strict=True):
        entry["area"] = area(*box)
    assert [what for what in _faults(tree) if form in what] == list(_faults(tree))
    assert len(_faults(tree)) == is_told
    tree["annotations"] = tree["annotations"][:2]
    assert _faults(tree) == {}


def test_objects_that_fill_their_images_have_both_areas() -> None:
    """Where corners and sides are the same numbers, nothing is accused."""
    tree = _tree([[0, 0, 190, 110]] * 9 + [[10, 5, 60, 35]], [[]] * 10)
    for entry in tree["annotations"]:
        entry["area"] = 190 * 110
    tree["annotations"][-1]["area"] = 50 * 30
    assert _faults(tree) == {}


def test_a_mixed_file_is_not_accused_as_a_whole() -> None:
    """Where some boxes fit in one form and some in another, each is for data-check to name."""
    boxes = [*BOXES, *[FORMS["[x0, y0, x1, y1]"](*box) for box in BOXES]]
    assert _faults(_tree(boxes, [_outline(*box) for box in [*BOXES, *BOXES]])) == {}
    boxes = [FORMS["[x0, y0, x1, y1]"](*box) for box in NEAR * 10]
    masks = [_outline(*box) for box in NEAR * 10]
    for slips, is_told in ((2, True), (3, False)):
        masks[:slips] = [_outline(150, 100, 9, 9)] * slips
        assert bool(_faults(_tree(boxes, masks))) == is_told


def test_boxes_all_over_a_long_file_are_looked_at() -> None:
    """The first part of a file does not decide: corners further back are found in the sample."""
    good, bad = [0, 0, 50, 40], BOXES[1]
    boxes = [*[good] * 1500, *[FORMS["[x0, y0, x1, y1]"](*bad)] * 1500]
    masks = [*[_outline(*good)] * 1500, *[_outline(*bad)] * 1500]
    ((_, entries),) = _faults(_tree(boxes, masks)).items()
    assert len(entries) == 3000


def test_training_refuses_such_a_file(tmp_path: Path) -> None:
    """Opening a set for training or evaluation reports the form that its boxes seem to have."""
    Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "1.png")
    boxes = [_in_fractions(FORMS["[centre x, centre y, width, height]"](*box)) for box in BOXES]
    path = tmp_path / "set.json"
    path.write_text(json.dumps(_tree(boxes, [_outline(*box) for box in BOXES])), encoding="utf-8")
    expected = r"seems to be \[centre x, .* in fractions of the image, .* \(5\): annotation 1, "
    with pytest.raises(UserError, match=expected):
        open_coco(path, tmp_path)
