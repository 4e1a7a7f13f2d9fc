import base64
import io
import json
import math
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as mask_codec

from detection.coco.importers.annotated import Instance, Notes
from detection.coco.importers.labelme import parse
from detection.coco.masks import area_of, encode_mask
from rsa_pretrain.data.read_settings import DEFAULT_RULES
from rsa_pretrain.plumbing.errors import UserError

SIZE = (40, 60)
SQUARE = [[2, 3], [12, 3], [12, 9], [2, 9]]


def _shape(kind: str | None, points: Any, **keys: Any) -> dict[str, Any]:
    return {"label": "cat", "points": points, "shape_type": kind, **keys}


def _content(*shapes: Any, **keys: Any) -> bytes:
    return json.dumps({"imagePath": "a.png", "shapes": shapes, **keys}).encode()


def _encoded(mask: Any) -> str:
    with io.BytesIO() as file:
        Image.fromarray(np.asarray(mask, dtype=np.uint8)).save(file, format="PNG")
        return base64.b64encode(file.getvalue()).decode("ascii")


def _read(*shapes: Any, **keys: Any) -> tuple[list[Instance], dict[str, list[str]]]:
    notes = Notes()
    parsed = parse("a.json", _content(*shapes, **keys), notes, DEFAULT_RULES)
    return parsed.instances(SIZE), notes.kinds


def _pixels(instance: Instance) -> Any:
    return mask_codec.decode(encode_mask(instance.segmentation, SIZE))


def test_outlines_are_polygons() -> None:
    """A polygon keeps its corners; its box is their extent. An old file states no type."""
    for kind in ("polygon", "oriented_rectangle", None):
        (instance,), notes = _read(_shape(kind, SQUARE))
        assert instance == Instance("cat", [2, 3, 10, 6], [[2, 3, 12, 3, 12, 9, 2, 9]])
        assert notes == {}


@pytest.mark.parametrize("points", [[[12, 3], [2, 9]], [[2, 9], [12, 3]], SQUARE])
def test_rectangles_are_boxes(points: Any) -> None:
    """From any two opposite corners, or all four; there is no mask."""
    (instance,), _ = _read(_shape("rectangle", points))
    assert instance == Instance("cat", [2, 3, 10, 6])


def test_circles_are_polygons() -> None:
    """Centre and a point on the edge give the exact box, nearly the area, and a note."""
    (instance,), notes = _read(_shape("circle", [[30, 20], [33, 24]]))
    assert instance.bbox == pytest.approx([25, 15, 10, 10])
    assert area_of(instance.segmentation, SIZE) == pytest.approx(math.pi * 25, rel=0.03)
    assert notes == {"circles, converted to polygons of 64 corners": ["a.json: cat"]}


@pytest.mark.parametrize("scale", [1, 255])
@pytest.mark.parametrize("corner", [(4, 6), (3.6, 6.4), (-1, -2), (58, 38)])
def test_masks_lie_at_their_first_corner(scale: int, corner: tuple[float, float]) -> None:
    """Pixel for pixel as LabelMe draws them, rounded to whole pixels and cut at the edges."""
    random = np.random.default_rng(0)
    patch = random.integers(0, 2, (5, 4))
    points = [list(corner), [corner[0] + 3, corner[1] + 4]]
    (instance,), _ = _read(_shape("mask", points, mask=_encoded(patch * scale)))
    expected = np.zeros((60, 80), dtype=np.uint8)  # with a margin of 10 px
    left, top = (round(value) + 10 for value in corner)
    expected[top : top + 5, left : left + 4] = patch
    np.testing.assert_array_equal(_pixels(instance), expected[10:50, 10:70])


def test_a_group_is_one_object() -> None:
    """Shapes of a label and group are its parts: outlines stay outlines, masks are united."""
    first, second = SQUARE, [[20, 20], [30, 20], [30, 30]]
    instances, _ = _read(
        _shape("polygon", first, group_id=1),
        _shape("polygon", first, group_id=2),
        _shape("polygon", first),
        _shape("polygon", second, group_id=1),
        _shape("polygon", first, group_id=1, label="dog"),
    )
    assert [(entry.label, len(entry.segmentation or ())) for entry in instances] == [
        ("cat", 2),
        ("cat", 1),
        ("cat", 1),
        ("dog", 1),
    ]
    assert instances[0].bbox == [2, 3, 28, 27]

    (box,), _ = _read(
        _shape("rectangle", [[2, 3], [4, 5]], group_id=1),
        _shape("rectangle", [[8, 8], [9, 9]], group_id=1),
    )
    assert box == Instance("cat", [2, 3, 7, 6])

    (mixed,), _ = _read(
        _shape("mask", [[40, 30], [41, 31]], group_id=1, mask=_encoded(np.ones((2, 2)))),
        _shape("rectangle", [[2, 3], [12, 9]], group_id=1),
        _shape("polygon", [[20, 20], [24, 20], [24, 24], [20, 24]], group_id=1),
    )
    expected = np.zeros(SIZE, dtype=np.uint8)
    expected[30:32, 40:42] = expected[3:9, 2:12] = expected[20:24, 20:24] = 1
    np.testing.assert_array_equal(_pixels(mixed), expected)
    assert mixed.bbox == [2, 3, 40, 29]


def test_what_is_not_carried_over_is_noted() -> None:
    """Shapes without area, switches that are on, texts and unknown keys, each by its kind."""
    shapes = [
        _shape("point", [[1, 1]]),
        _shape("line", [[1, 1], [5, 5]]),
        _shape("linestrip", [[1, 1], [5, 5], [9, 1]]),
        _shape("points", [[1, 1], [2, 2], [3, 3]]),
        _shape("polygon", [[1, 1], [2, 2]]),
        _shape("polygon", SQUARE, flags={"occluded": True, "odd": False}, description="torn"),
        _shape("polygon", SQUARE, flags={"odd": False}, description="", score=None, lineColor=[1]),
    ]
    instances, notes = _read(*shapes, flags={"night": True}, lineColor=[0, 255, 0, 128])
    assert len(instances) == 2
    assert notes == {
        "'flags' of images, not carried over": ["a.json"],
        **{
            f"shapes of the type '{kind}', left out": ["a.json: cat"]
            for kind in ("point", "line", "linestrip", "points")
        },
        "outlines of fewer than three corners, left out": ["a.json: cat"],
        "'flags' of shapes, not carried over": ["a.json: cat"],
        "'description' of shapes, not carried over": ["a.json: cat"],
    }


def test_spaces_in_labels_are_one() -> None:
    """At the ends they are none: a slip of the keyboard is no other class."""
    (instance,), _ = _read(_shape("polygon", SQUARE, label=" wild \n cat "))
    assert instance.label == "wild cat"


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({}, ("a.png", None)),
        ({"imagePath": None}, (None, None)),
        ({"imageHeight": 40, "imageWidth": 60.0}, ("a.png", (40, 60))),
    ],
)
def test_image_is_stated(keys: dict[str, Any], expected: tuple[Any, Any]) -> None:
    """Name and size are handed on as far as they are there."""
    assert parse("a.json", _content(**keys), Notes(), DEFAULT_RULES)[:2] == expected


def test_encodings() -> None:
    """A byte order mark, UTF-16 and Windows' line ends change nothing."""
    text = json.dumps({"shapes": [_shape("polygon", SQUARE, label="käse")]}, indent=1)
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        content = text.replace("\n", "\r\n").encode(encoding)
        (instance,) = parse("a.json", content, Notes(), DEFAULT_RULES).instances(SIZE)
        assert instance.label == "käse"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x89PNG\r\n\x1a\n\xff\xff", r"'a\.json' is not UTF-8 \(byte 0\); save it as UTF-8"),
        (b"not json", r"'a\.json' is not JSON"),
        (b"", r"'a\.json' is not JSON"),
        (b"[" * 100_000, r"'a\.json' is not JSON"),
        (b"[]", r"is not LabelMe's: expected an object with a list 'shapes'"),
        (b'{"images": [], "annotations": []}', r"is not LabelMe's"),
        (_content(imagePath=3), "an imagePath that is not text: 3"),
        (_content(imageHeight=40), r"impossible imageHeight or imageWidth: \[40, None\]"),
        (_content(imageHeight=0, imageWidth=9), r"impossible imageHeight or imageWidth: \[0, 9\]"),
        (_content("x"), r"shape 1 of 'a\.json' is not an object"),
        (_content({"points": SQUARE}), r"shape 1 of 'a\.json' has no label"),
        (_content(_shape("polygon", SQUARE, label=" ")), "has no label"),
        (_content({"label": "cat"}), r"shape 1 of 'a\.json' \('cat'\) has no list 'points'"),
        (_content(_shape("polygon", [[1, 2, 3]])), "has no list 'points' of x, y pairs"),
        (_content(_shape("polygon", [[1, "2"], [3, 4], [5, 6]])), "has '2' as a coordinate"),
        (_content(_shape("polygon", [[1, math.nan], [3, 4], [5, 6]])), "has 'nan' as a coord"),
        (_content(_shape("polygon", [[1, 2e6], [3, 4], [5, 6]])), r"within ±1,000,000 pixels"),
        (_content(_shape("circle", [[9e5, 0], [-9e5, 0]])), "has '2700000.0' as a coordinate"),
        (_content(_shape("circle", [[1, 2]])), "is a circle of fewer than two points"),
        (_content(_shape("polygon", SQUARE, group_id=[1])), "a group_id or shape_type that is no"),
        (_content(_shape(3, SQUARE)), "a group_id or shape_type that is no"),  # type: ignore[arg-type]
        (_content(_shape("mask", SQUARE)), "has no mask in base64"),
        (_content(_shape("mask", SQUARE, mask="ÿ")), "has no mask in base64"),
        (
            _content(_shape("mask", SQUARE, mask="aGVsbG8=")),
            r"cannot decode the mask of shape 1 of 'a\.json' \('cat'\)",
        ),
    ],
)
def test_faults_are_one_line(content: bytes, message: str) -> None:
    """A file that is not as LabelMe writes it is refused by name, with the shape at fault."""
    with pytest.raises(UserError, match=message):
        parse("a.json", content, Notes(), DEFAULT_RULES)
