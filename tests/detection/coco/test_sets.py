import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from detection.coco import json_file
from detection.coco.sets import check_objects, mask_gap, open_coco, training_images
from rsa_pretrain.plumbing.errors import UserError

SQUARE = [[2.0, 2.0, 6.0, 2.0, 6.0, 6.0, 2.0, 6.0]]


def _annotation(number: int, image_id: int, category_id: int, **changes: Any) -> dict[str, Any]:
    return {
        "id": number,
        "image_id": image_id,
        "category_id": category_id,
        "bbox": [2.0, 2.0, 4.0, 4.0],
        "area": 16.0,
        "iscrowd": 0,
        "segmentation": SQUARE,
        **changes,
    }


def _small_tree() -> dict[str, Any]:
    return {
        "images": [
            {"id": number, "file_name": f"{number}.png", "height": 10, "width": 20}
            for number in (9, 4, 5)
        ],
        "annotations": [_annotation(1, 9, 70), _annotation(2, 4, 3)],
        "categories": [{"id": 70, "name": "b"}, {"id": 3, "name": "a"}, {"id": 12, "name": "c"}],
    }


@pytest.fixture
def write_set(tmp_path: Path) -> Callable[[Any], tuple[Path, Path]]:
    """Write an annotation file and the images of ``small_tree``."""

    def write(tree: Any) -> tuple[Path, Path]:
        images = tmp_path / "images"
        images.mkdir(exist_ok=True)
        for number in (9, 4, 5):
            Image.new("RGB", (20, 10)).save(images / f"{number}.png")
        path = tmp_path / "set.json"
        path.write_text(json.dumps(tree), encoding="utf-8")
        return path, images

    return write


WriteSet = Callable[[Any], tuple[Path, Path]]


def test_category_gaps_close(write_set: WriteSet) -> None:
    """Ids 3, 12, 70 become labels 1, 2, 3; images come by rising id, the empty one is left out."""
    coco = open_coco(*write_set(_small_tree()))
    assert coco.category_ids == [3, 12, 70]
    images = training_images(coco)
    assert [image.path.name for image in images] == ["4.png", "9.png"]
    assert [image.labels for image in images] == [(1,), (3,)]


def test_boxes_of_two_corners_are_refused(write_set: WriteSet) -> None:
    """Boxes [x0, y0, x1, y1], which would be far too large, are told; a few are no sign."""
    tree = _small_tree()
    corners = [[2.0, 2.0, 6.0, 6.0], [12.0, 3.0, 19.0, 9.0], [1.0, 6.0, 9.0, 9.5]]
    tree["annotations"] = [
        _annotation(number, 9, 70, bbox=corners[number % 3]) for number in range(1, 13)
    ]
    with pytest.raises(UserError, match=r"seems to be \[x0, y0, x1, y1\], expected .* \(12\): ann"):
        open_coco(*write_set(tree))
    tree["annotations"] = tree["annotations"][:4]
    open_coco(*write_set(tree))
    sides = [[x, y, right - x, bottom - y] for x, y, right, bottom in corners]
    tree["annotations"] = [
        _annotation(number, 9, 70, bbox=sides[number % 3]) for number in range(1, 13)
    ]
    open_coco(*write_set(tree))


def test_what_training_leaves_out(write_set: WriteSet, caplog: pytest.LogCaptureFixture) -> None:
    """Crowds and boxes without area in the image go, and are counted; what lacks a mask stays."""
    tree = _small_tree()
    tree["annotations"] += [
        _annotation(3, 9, 3, iscrowd=1, segmentation={"size": [10, 20], "counts": [0, 200]}),
        _annotation(4, 9, 3, bbox=[3.0, 3.0, 0.0, 4.0]),
        _annotation(5, 9, 3, bbox=[25.0, 3.0, 4.0, 4.0]),
        _annotation(6, 9, 3, segmentation=[]),
        _annotation(7, 9, 3, segmentation=[[1.0, 1.0, 2.0, 2.0]]),
        _annotation(8, 5, 3, iscrowd=1),
    ]
    with caplog.at_level("INFO"):
        images = training_images(open_coco(*write_set(tree)))
    assert [entry["id"] for image in images for entry in image.annotations] == [2, 1, 6, 7]
    assert "2 crowds" in caplog.text
    assert "2 boxes without area" in caplog.text
    assert "1 images without instances" in caplog.text


@pytest.mark.parametrize("keep", [False, True])
def test_images_without_annotations_are_kept_on_request(
    write_set: WriteSet, caplog: pytest.LogCaptureFixture, keep: bool
) -> None:
    """They come in their place, without objects; those of crowds or empty boxes alone stay out."""
    tree = _small_tree()
    tree["images"] += [
        {"id": number, "file_name": "4.png", "height": 10, "width": 20} for number in (1, 2)
    ]
    tree["annotations"] += [
        _annotation(3, 1, 3, iscrowd=1),
        _annotation(4, 2, 3, bbox=[3.0, 3.0, 0.0, 4.0]),
    ]
    with caplog.at_level("INFO"):
        images = training_images(open_coco(*write_set(tree)), keep_empty=keep)
    found = [(image.image_id, image.labels, len(image.annotations)) for image in images]
    assert found == [(4, (1,), 1), *([(5, (), 0)] if keep else []), (9, (3,), 1)]
    counted = "3 images (1 of them without objects)" if keep else "2 images"
    left_out = f"1 crowds, 1 boxes without area, {2 if keep else 3} images without instances"
    assert f"training on {counted}; left out: {left_out}" in caplog.text


def _without(key: str) -> Callable[[dict[str, Any]], Any]:
    return lambda tree: {name: value for name, value in tree.items() if name != key}


def _replaced(section: str, entries: list[Any]) -> Callable[[dict[str, Any]], Any]:
    return lambda tree: {**tree, section: entries}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tree: [tree], "expected a JSON object"),
        (_without("categories"), "no list 'categories'"),
        (_replaced("categories", []), "lists no categories"),
        (_replaced("images", []), "lists no images"),
        (
            _replaced("annotations", [{"id": 1}]),
            r"without a valid image_id, .* \(1\): annotations\[0\]",
        ),
        (_replaced("images", [{"id": "4"}]), r"images without a valid file_name, .*: images\[0\]"),
        (_replaced("images", [{"id": 4.5}]), "images without a valid id, file_name"),
        (
            _replaced("annotations", [_annotation(1, 8, 3)]),
            r"not listed \(1\): annotation 1 .image_id 8",
        ),
        (
            _replaced("annotations", [_annotation(1, 9, 1)]),
            r"not listed \(1\): annotation 1 .category_id 1",
        ),
        (_replaced("annotations", [_annotation(1, 9, 3)] * 2), "has id 1 twice"),
        (
            _replaced("images", [{"id": 4, "file_name": "4.png", "height": 0, "width": 20}]),
            r"impossible size \(1\): images\[0\] \(4.png, 20x0\); .* not listed \(1\): ",
        ),
        (
            _replaced("images", [{"id": 4, "file_name": "4.png", "height": 1, "width": 10**400}]),
            "impossible size",
        ),
        (
            _replaced("annotations", [_annotation(1, 9, 3, area=float("nan"))]),
            "area is not a number",
        ),
        (_replaced("annotations", [_annotation(True, 9, 3)]), r"without a valid id .*\[0\]"),
        (_replaced("annotations", [_annotation(1, 9, 3, iscrowd=2)]), "iscrowd is not 0 or 1"),
        *(
            (_replaced("annotations", [_annotation(1, 9, 3, difficult=odd)]), "difficult is not 0")
            for odd in (2, "yes", "1.0", [1])
        ),
        (_replaced("annotations", [_annotation(1, 9, 3, area="wide")]), "area is not a number"),
        (_replaced("annotations", [_annotation(1, 9, 3, bbox=[1, 2, 3, 1e9])]), r"bbox \[1, 2, 3"),
        (
            _replaced(
                "annotations", [_annotation(1, 9, 3, segmentation={"size": [9, 9], "counts": [81]})]
            ),
            r"damaged \(1\): annotation 1 \(of size \[9, 9\], its image is \[10, 20\]\)",
        ),
        (_replaced("annotations", [_annotation(1, 9, 3, bbox=[1, 2, 3])]), r"bbox \[1, 2, 3\]"),
    ],
)
def test_files_of_other_formats_are_refused(
    write_set: WriteSet, change: Callable[[dict[str, Any]], Any], message: str
) -> None:
    """Each violation of the format is named with the file and the entry."""
    with pytest.raises(UserError, match=message):
        open_coco(*write_set(change(copy.deepcopy(_small_tree()))))


def test_file_that_is_not_json(tmp_path: Path) -> None:
    """Neither a cut-off nor an absent file gives a traceback."""
    path = tmp_path / "cut.json"
    path.write_text('{"images": [', encoding="utf-8")
    with pytest.raises(UserError, match="are not JSON"):
        open_coco(path, tmp_path)
    with pytest.raises(UserError, match="No such file"):
        open_coco(tmp_path / "absent.json", tmp_path)


def test_a_file_beyond_memory_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as one of hundreds of GiB."""

    def fail(text: str) -> object:
        raise MemoryError

    (tmp_path / "a.json").write_text("{}", encoding="utf-8")
    monkeypatch.setattr(json_file, "parse_json", fail)
    with pytest.raises(UserError, match=r"annotations '.*a\.json' do not fit into memory$"):
        open_coco(tmp_path / "a.json", tmp_path)


def test_missing_images_are_named_and_counted(write_set: WriteSet) -> None:
    """All missing files are found at the start."""
    path, images = write_set(_small_tree())
    (images / "4.png").unlink()
    (images / "9.png").unlink()
    with pytest.raises(UserError, match=r"2 of 3 images.*9\.png, 4\.png"):
        open_coco(path, images)


def test_a_name_that_no_file_can_have_is_of_a_missing_image(write_set: WriteSet) -> None:
    """The system refuses to look for it."""
    tree = _small_tree()
    path, images = write_set(tree)
    tree["images"][0]["file_name"] = "9" * 999
    path.write_text(json.dumps(tree), encoding="utf-8")
    with pytest.raises(UserError, match="1 of 3 images"):
        open_coco(path, images)


def test_set_without_usable_instance_is_refused(write_set: WriteSet) -> None:
    """There must be something to learn."""
    coco = open_coco(*write_set(_replaced("annotations", [])(_small_tree())))
    for keep in (False, True):
        with pytest.raises(UserError, match="no image with a usable instance"):
            training_images(coco, keep_empty=keep)


def test_mask_evaluation_needs_masks(write_set: WriteSet) -> None:
    """An object that has only a box is named as what keeps masks from being evaluated."""
    tree = _small_tree()
    assert mask_gap(open_coco(*write_set(tree)).tree) is None
    tree["annotations"].append(_annotation(17, 9, 3, segmentation=[]))
    gap = mask_gap(open_coco(*write_set(tree)).tree)
    assert gap == "1 of 3 annotations have no mask (ids 17)"


def test_evaluation_needs_an_object(write_set: WriteSet) -> None:
    """A test set of nothing but crowds has no average precision and is refused."""
    tree = _replaced("annotations", [_annotation(1, 9, 3, iscrowd=1)])(_small_tree())
    coco = open_coco(*write_set(tree))
    with pytest.raises(UserError, match="has no object; average precision"):
        check_objects(coco.annotations_path, coco.tree)
