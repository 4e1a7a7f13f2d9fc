"""Exports of other tools are read as the same data as COCO's own form, and each repair is noted."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as mask_codec

from detection.coco.evaluation import evaluate
from detection.coco.masks import encode_mask, run_lengths
from detection.coco.repair import repair
from detection.coco.sets import CocoSet, check_objects, open_coco, training_images
from detection.survey.data_check import check_set
from rsa_pretrain.plumbing.errors import UserError

Tree = dict[str, Any]
Change = Callable[[Tree], Any]

SIZE = (64, 64)
LOOSE = "are text or decimals, read as numbers"
IDS = ("images.id", "categories.id", "annotations.id", "annotations.image_id")
ALL_IDS = (*IDS, "annotations.category_id")


def _all(section: str, change: Callable[[Tree], Any]) -> Change:
    return lambda tree: [change(entry) for entry in tree[section]]


def _set(section: str, key: str, value: Callable[[Any], Any]) -> Change:
    return _all(section, lambda entry: entry.update({key: value(entry[key])}))


def _drop(section: str, *keys: str) -> Change:
    return _all(section, lambda entry: [entry.pop(key) for key in keys])


def _ids(spelt: Callable[[int], Any]) -> Change:
    def change(tree: Tree) -> None:
        for section in ("images", "categories", "annotations"):
            for entry in tree[section]:
                for key in {"id", "image_id", "category_id"} & entry.keys():
                    entry[key] = spelt(entry[key])

    return change


def _named(key: str, section: str, name_key: str) -> Change:
    """Make annotations refer to entries by name."""

    def change(tree: Tree) -> None:
        names = {entry["id"]: entry[name_key] for entry in tree[section]}
        for annotation in tree["annotations"]:
            annotation[key] = names[annotation[key]]

    return change


def _both(*changes: Change) -> Change:
    return lambda tree: [change(tree) for change in changes]


def _pairs(outline: list[float]) -> list[list[float]]:
    return [[x, y] for x, y in zip(outline[::2], outline[1::2], strict=True)]


def _text_code(outlines: Any) -> Tree:
    code = encode_mask(outlines, SIZE)
    return {"size": list(SIZE), "counts": code["counts"].decode("ascii")}


def _runs_code(outlines: Any) -> Tree:
    return {"size": list(SIZE), "counts": run_lengths(_text_code(outlines)["counts"])}


def _halves(outlines: Any) -> list[Tree]:
    """Cut a mask into its upper and lower part."""
    mask = mask_codec.decode(encode_mask(outlines, SIZE))
    parts = []
    for rows in (slice(0, 32), slice(32, 64)):
        part = np.zeros_like(mask, order="F")
        part[rows] = mask[rows]
        code = mask_codec.encode(part)
        parts.append({"size": list(SIZE), "counts": code["counts"].decode("ascii")})
    return parts


NESTED = "segmentation are nested differently from [[x1, y1, …]], and read so"
LISTED = "segmentation are run-length codes in a list, taken out of it"
SPELT = "segmentation have numbers as text or with decimals, read as numbers"
TIDIED = "file_name have backslashes or a leading slash, read as relative paths"
MASKED_AREA = "area are missing or not above 0; computed from the masks"
SWITCHED = "iscrowd are text, decimals or true and false, read as 0 and 1"
NUMBERED = "are missing or not numbers; numbered after the highest"


def _mask(change: Callable[[Any], Any]) -> Change:
    return _set("annotations", "segmentation", change)


CASES: dict[str, tuple[Change, list[str]]] = {
    "as it is": (lambda tree: None, []),
    "flat outline": (_mask(lambda mask: mask[0]), [NESTED]),
    "corners as pairs": (_mask(lambda mask: [_pairs(mask[0])]), [NESTED]),
    "one outline of pairs": (_mask(lambda mask: _pairs(mask[0])), [NESTED]),
    "one list too many": (_mask(lambda mask: [mask]), [NESTED]),
    "coordinates as text": (_mask(lambda mask: [list(map(str, mask[0]))]), [SPELT]),
    "code of text": (_mask(_text_code), []),
    "code of runs": (_mask(_runs_code), []),
    "list of one code": (_mask(lambda mask: [_text_code(mask)]), [LISTED]),
    "list of one code of runs": (_mask(lambda mask: [_runs_code(mask)]), [LISTED]),
    "list of two codes": (_mask(_halves), [LISTED]),
    "code with decimal size": (
        _mask(lambda mask: {**_runs_code(mask), "size": [64.0, "64"]}),
        [SPELT],
    ),
    "area null": (_set("annotations", "area", lambda area: None), [MASKED_AREA]),
    "area 0": (_set("annotations", "area", lambda area: 0), [MASKED_AREA]),
    "area below 0": (_set("annotations", "area", lambda area: -1.0), [MASKED_AREA]),
    "area absent": (_drop("annotations", "area"), [MASKED_AREA]),
    "area as text": (_set("annotations", "area", str), [f"area {LOOSE}"]),
    "iscrowd null": (
        _set("annotations", "iscrowd", lambda crowd: None),
        ["iscrowd are missing; taken as 0"],
    ),
    "iscrowd absent": (_drop("annotations", "iscrowd"), ["iscrowd are missing; taken as 0"]),
    "iscrowd false": (_set("annotations", "iscrowd", bool), [SWITCHED]),
    "iscrowd as text": (_set("annotations", "iscrowd", str), [SWITCHED]),
    "ids as text": (_ids(str), [f"{key} {LOOSE}" for key in ALL_IDS]),
    "ids with leading zeros": (_ids("{:012d}".format), [f"{key} {LOOSE}" for key in ALL_IDS]),
    "ids as decimals": (_ids(float), [f"{key} {LOOSE}" for key in ALL_IDS]),
    "ids as text in images alone": (_set("images", "id", str), [f"images.id {LOOSE}"]),
    "ids as text in references alone": (
        _set("annotations", "image_id", str),
        [f"annotations.image_id {LOOSE}"],
    ),
    "width as decimal": (_set("images", "width", float), [f"images.width {LOOSE}"]),
    "sides as text": (
        _both(_set("images", "width", str), _set("images", "height", str)),
        [f"images.height {LOOSE}", f"images.width {LOOSE}"],
    ),
    "sides absent": (
        _drop("images", "width", "height"),
        ["images have no height and width; read from their files"],
    ),
    "width null": (
        _set("images", "width", lambda width: None),
        ["images have no width; read from their files"],
    ),
    "bbox absent": (
        _drop("annotations", "bbox"),
        ["bbox are missing; computed from the masks"],
    ),
    "bbox empty": (
        _set("annotations", "bbox", lambda box: []),
        ["bbox are missing; computed from the masks"],
    ),
    "bbox as text": (
        _set("annotations", "bbox", lambda box: list(map(str, box))),
        [f"bbox {LOOSE}"],
    ),
    "backslashes": (_set("images", "file_name", lambda name: f".\\{name}"), [TIDIED]),
    "leading slash": (_set("images", "file_name", lambda name: f"/{name}"), [TIDIED]),
    "annotation ids absent": (_drop("annotations", "id"), [f"annotations.id {NUMBERED}"]),
    "images called by name": (
        _named("image_id", "images", "file_name"),
        ["annotations.image_id are values of file_name, read as those entries' ids"],
    ),
    "image ids absent": (
        _both(_named("image_id", "images", "file_name"), _drop("images", "id")),
        [
            f"images.id {NUMBERED}",
            "annotations.image_id are values of file_name, read as those entries' ids",
        ],
    ),
    "image ids that are no numbers": (
        _both(
            _set("annotations", "image_id", lambda number: f"photo-{number}"),
            _set("images", "id", lambda number: f"photo-{number}"),
        ),
        [
            f"images.id {NUMBERED}",
            "annotations.image_id are text, read as the numbers given to those ids",
        ],
    ),
    "categories called by name": (
        _named("category_id", "categories", "name"),
        ["annotations.category_id are values of name, read as those entries' ids"],
    ),
}


@pytest.fixture
def tree(shapes_test_set: CocoSet) -> Tree:
    """The drawn test set's file."""
    text = shapes_test_set.annotations_path.read_text(encoding="utf-8")
    parsed: Tree = json.loads(text)
    return parsed


def _reopened(tree: Tree, folder: Path, images_dir: Path) -> CocoSet:
    path = folder / "changed.json"
    path.write_text(json.dumps(tree), encoding="utf-8")
    return open_coco(path, images_dir)


@pytest.mark.parametrize("name", CASES)
def test_other_forms_are_the_same_data(
    name: str,
    tree: Tree,
    shapes_test_set: CocoSet,
    perfect_predictions: list[Tree],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Ids, sizes, boxes and areas are the same, masks bitwise; AP stays 100; all is noted."""
    change, notes = CASES[name]
    change(tree)
    with caplog.at_level("WARNING"):
        found = _reopened(tree, tmp_path, shapes_test_set.images_dir)
    for section in ("images", "categories"):
        assert found.tree[section] == shapes_test_set.tree[section]
    before, after = (coco.tree["annotations"] for coco in (shapes_test_set, found))
    for expected, entry in zip(before, after, strict=True):
        assert type(entry["iscrowd"]) is int
        for key in ("id", "image_id", "category_id", "iscrowd"):
            assert entry[key] == expected[key]
        assert entry["area"] == pytest.approx(expected["area"])
        assert entry["bbox"] == pytest.approx(expected["bbox"], abs=0.011)
        masks = [
            mask_codec.decode(encode_mask(part["segmentation"], SIZE)) for part in (expected, entry)
        ]
        assert masks[0].any()
        np.testing.assert_array_equal(*masks)
    metrics = evaluate(found.tree, perfect_predictions)
    assert (metrics["bbox_AP"], metrics["segm_AP"]) == pytest.approx((100, 100))
    assert len(training_images(found)) == len(training_images(shapes_test_set))

    counts = {section: len(tree[section]) for section in ("images", "annotations", "categories")}
    assert len(found.repairs) == len(notes)
    for line, note in zip(found.repairs, notes, strict=True):
        assert line.endswith(note)
        assert int(line.split()[0]) in counts.values()
        assert line in caplog.text
    check = check_set(found.annotations_path, found.images_dir, "test")
    assert check.errors == {}
    assert set(found.repairs) <= check.notes.keys()


@pytest.mark.parametrize(
    ("encoding", "notes"),
    [
        ("utf-8", ()),
        ("utf-8-sig", ("1 byte order mark at the start of the file, ignored",)),
        ("utf-16", ("1 file in UTF-16, not in UTF-8, read as such",)),
    ],
)
def test_files_of_other_encodings_are_read(
    encoding: str, notes: tuple[str, ...], tree: Tree, shapes_test_set: CocoSet, tmp_path: Path
) -> None:
    """A byte order mark, or UTF-16, changes nothing and is noted."""
    tree["categories"][0]["name"] = "kreisförmig"
    path = tmp_path / "changed.json"
    path.write_bytes(json.dumps(tree, ensure_ascii=False).encode(encoding))
    found = open_coco(path, shapes_test_set.images_dir)
    assert found.tree == tree
    assert found.repairs == notes


def test_other_code_pages_are_refused_by_name(
    tree: Tree, shapes_test_set: CocoSet, tmp_path: Path
) -> None:
    """The error for a Latin-1 file states the expected encoding and the position."""
    tree["categories"][0]["name"] = "kreisförmig"
    path = tmp_path / "changed.json"
    path.write_bytes(json.dumps(tree, ensure_ascii=False).encode("latin-1"))
    with pytest.raises(UserError, match=r"are not UTF-8 \(byte [0-9,]+\); save the file as UTF-8"):
        open_coco(path, shapes_test_set.images_dir)


@pytest.mark.parametrize(
    ("name", "expected"), [(None, "category 1"), (7, "7"), ("absent", "category 1")]
)
def test_categories_have_names(name: Any, expected: str, tree: Tree) -> None:
    """A category without a name is called by its id, one with a number by the number."""
    if name == "absent":
        del tree["categories"][0]["name"]
    else:
        tree["categories"][0]["name"] = name
    repaired, notes = repair(tree, None)
    assert [entry["name"] for entry in repaired["categories"][:2]] == [expected, "rectangle"]
    assert len(notes) == 1


def test_areas_without_masks_are_the_boxes(tree: Tree) -> None:
    """Without a mask, the box's area is used, and the note distinguishes the two."""
    for entry in tree["annotations"]:
        del entry["segmentation"], entry["area"]
    repaired, notes = repair(tree, None)
    for entry in repaired["annotations"]:
        assert entry["area"] == entry["bbox"][2] * entry["bbox"][3]
    assert notes == [
        f"{len(tree['annotations'])} values of annotations.area are missing or not above 0; taken "
        "as the boxes'"
    ]


def test_sizes_of_turned_photographs_are_upright(tree: Tree, tmp_path: Path) -> None:
    """A header's size is the one that annotators saw: turned as EXIF says."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (20, 10)).save(tmp_path / "turned.jpg", exif=exif)
    tree["images"] = [{"id": 1, "file_name": "turned.jpg"}]
    repaired, _ = repair(tree, tmp_path)
    assert (repaired["images"][0]["height"], repaired["images"][0]["width"]) == (20, 10)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_drop("annotations", "bbox", "segmentation"), r"without a valid bbox \(7\)"),
        (_set("annotations", "image_id", "photo-{}".format), r"without a valid image_id \(7\)"),
        (_set("images", "id", lambda number: number + 0.5), r"images without a valid id \(3\)"),
        (_set("annotations", "iscrowd", lambda crowd: "maybe"), "iscrowd is not 0 or 1"),
        (_set("annotations", "area", lambda area: "large"), "whose area is not a number"),
        (
            _mask(lambda mask: [_text_code(mask), {"size": [9, 9], "counts": [81]}]),
            r"code is damaged \(7\): annotation 1 \(of size \[9, 9\]",
        ),
        (
            _mask(lambda mask: [{"size": [64, 64]}]),
            r"code is damaged \(7\): annotation 1 \(without",
        ),
    ],
)
def test_what_cannot_be_repaired_is_one_line(
    change: Change, message: str, tree: Tree, shapes_test_set: CocoSet, tmp_path: Path
) -> None:
    """An unresolved reference stays a fault: one kind, counted, with examples."""
    change(tree)
    with pytest.raises(UserError, match=message) as caught:
        _reopened(tree, tmp_path, shapes_test_set.images_dir)
    assert ";" not in str(caught.value)


def test_names_of_two_images_stand_for_neither(
    tree: Tree, shapes_test_set: CocoSet, tmp_path: Path
) -> None:
    """A file name shared by two images refers to neither."""
    _named("image_id", "images", "file_name")(tree)
    tree["images"][1]["file_name"] = tree["images"][0]["file_name"]
    with pytest.raises(UserError, match="annotations without a valid image_id"):
        _reopened(tree, tmp_path, shapes_test_set.images_dir)


def test_the_file_s_own_tree_is_not_changed(tree: Tree) -> None:
    """Repairs are made on copies."""
    for change, _ in CASES.values():
        damaged = copy.deepcopy(tree)
        change(damaged)
        before = copy.deepcopy(damaged)
        repair(damaged, None)
        assert damaged == before


def test_crowds_alone_train_nothing(tree: Tree, shapes_test_set: CocoSet, tmp_path: Path) -> None:
    """The error states what was left out."""
    _set("annotations", "iscrowd", lambda crowd: True)(tree)
    coco = _reopened(tree, tmp_path, shapes_test_set.images_dir)
    with pytest.raises(UserError, match=r"no image with a usable instance \(left out: 7 crowds\)"):
        training_images(coco)
    with pytest.raises(UserError, match="has no object; average precision"):
        check_objects(coco.annotations_path, coco.tree)
