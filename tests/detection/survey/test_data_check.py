import copy
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from detection.__main__ import main
from detection.recipe.recipe import Recipe
from detection.survey.data_check import check_set, compare_sets
from detection.survey.findings import in_words
from rsa_pretrain.plumbing.config.files import write_config
from rsa_pretrain.plumbing.errors import UserError

SQUARE = [2.0, 2.0, 6.0, 2.0, 6.0, 6.0, 2.0, 6.0]
TEXT = "<img src=x onerror=alert(1)>&amp;\"'"

Tree = dict[str, Any]
Check = Callable[..., Any]


def _annotation(number: int, image_id: int, category_id: int, **changes: Any) -> Tree:
    return {
        "id": number,
        "image_id": image_id,
        "category_id": category_id,
        "bbox": [2.0, 2.0, 4.0, 4.0],
        "area": 16.0,
        "iscrowd": 0,
        "segmentation": [SQUARE],
        **changes,
    }


def _sound_tree() -> Tree:
    return {
        "images": [
            {"id": number, "file_name": f"{number}.png", "height": 10, "width": 20}
            for number in (1, 2)
        ],
        "annotations": [_annotation(1, 1, 1), _annotation(2, 2, 2), _annotation(3, 2, 1)],
        "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}],
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The images 1.png and 2.png of 20x10 pixels."""
    for number in (1, 2):
        Image.new("RGB", (20, 10)).save(tmp_path / f"{number}.png")
    return tmp_path


@pytest.fixture
def check(folder: Path) -> Check:
    """Check a tree with the folder's images."""

    def run(tree: Tree, role: Any = "train") -> Any:
        path = folder / "set.json"
        path.write_text(json.dumps(tree), encoding="utf-8")
        return check_set(path, folder, role)

    return run


@pytest.mark.parametrize("role", ["train", "test"])
def test_sound_set_has_no_findings(check: Check, role: str) -> None:
    """A clean set has no findings; instances and images are counted by category."""
    found = check(_sound_tree(), role)
    assert (found.errors, found.notes) == ({}, {})
    assert found.category_sizes == {1: ("a", 2, 2), 2: ("b", 1, 1)}
    assert found.usable == {1, 2}


def _add(*annotations: Tree) -> Callable[[Tree], None]:
    return lambda tree: tree["annotations"].extend(annotations)


def _drop(section: str) -> Callable[[Tree], None]:
    return lambda tree: tree.pop(section)


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (
            _add({"id": 7}),
            r"annotations without a valid image_id, category_id, bbox \(1\): annotations.3.",
        ),
        (_add("text"), r"annotations without a valid id, .*: annotations.3."),
        (_add(_annotation(1, 1, 1)), r"a repeated id \(1\): annotations has id 1 twice"),
        (_add(_annotation(7, 9, 1)), r"image that is not listed \(1\): annotation 7 .image_id 9"),
        (_add(_annotation(7, 1, 5)), r"category that is not listed .*annotation 7 .category_id 5"),
        (_add(_annotation(7, 1, 1, bbox=[1, 2, "wide", 4])), r"bbox is not .*annotation 7 .bbox"),
        (_add(_annotation(7, 1, 1, bbox=[1, 2, float("nan"), 4])), "bbox is not .*annotation 7"),
        (_add(_annotation(7, 1, 1, iscrowd="no")), "iscrowd is not 0 or 1 .*annotation 7"),
        (
            _add(_annotation(7, 1, 1, segmentation={"size": [10, 20], "counts": [199]})),
            "code is damaged .*annotation 7 .of 199 pixels, not 200",
        ),
        (lambda tree: tree["annotations"].clear(), "no image with a usable instance"),
        (lambda tree: tree["images"].append(dict(tree["images"][0])), "images has id 1 twice"),
        (
            lambda tree: tree["images"].append(
                {"id": 3, "file_name": "absent.png", "height": 1, "width": 1}
            ),
            r"images that are not in .*\(1\): absent.png",
        ),
        (
            lambda tree: tree["images"][0].update(height=20, width=10),
            r"size differs from the annotated one \(1\): 1.png \(is 20x10, annotated 10x20\)",
        ),
    ],
)
def test_what_stops_training_is_an_error(
    check: Check, damage: Callable[[Tree], None], expected: str
) -> None:
    """Each damage is found, with the entry that has it, and sound entries are not accused."""
    tree = copy.deepcopy(_sound_tree())
    damage(tree)
    found = check(tree)
    (line,) = in_words(found.errors, 5)
    assert re.search(expected, line)


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (_drop("categories"), "no list 'categories'"),
        (_drop("annotations"), "images without annotations .* which training and evaluation need"),
        (lambda tree: tree["images"].clear(), "lists no images"),
    ],
)
def test_what_cannot_be_checked_is_refused(
    check: Check, damage: Callable[[Tree], None], expected: str
) -> None:
    """A file without one of its lists has nothing to check."""
    tree = _sound_tree()
    damage(tree)
    with pytest.raises(UserError, match=expected):
        check(tree)


@pytest.mark.parametrize(
    ("section", "key", "expected"),
    [
        ("annotations", "bbox", r"annotations without a valid bbox \(80\): annotations\[0\], "),
        ("annotations", "image_id", r"annotations without a valid image_id \(80\)"),
        ("images", "file_name", r"images without a valid file_name \(2\): images\[0\], "),
    ],
)
def test_one_cause_is_one_line(check: Check, section: str, key: str, expected: str) -> None:
    """A field that all entries lack is one finding; what follows from it is none."""
    tree = _sound_tree()
    tree["annotations"] = [
        _annotation(number, 1 + number % 2, 1 + number % 2, segmentation=None)
        for number in range(1, 81)
    ]
    for entry in tree[section]:
        del entry[key]
    (line,) = in_words(check(tree).errors, 1)
    assert re.search(expected, line)


def test_broken_images_are_errors(check: Check, folder: Path) -> None:
    """A cut file and a text file are named; an image turned by EXIF has the size it is seen in."""
    whole = (folder / "1.png").read_bytes()
    (folder / "1.png").write_bytes(whole[: len(whole) // 2])
    (folder / "2.png").write_text("no image", encoding="utf-8")
    found = check(_sound_tree())
    (line,) = in_words(found.errors, 5)
    assert re.search(r"cannot be decoded \(2\): .*1\.png.*2\.png", line)

    turned = Image.Exif()
    turned[0x0112] = 6
    for number in (1, 2):
        Image.new("RGB", (10, 20)).save(folder / f"{number}.png", exif=turned)
    assert check(_sound_tree()).errors == {}


def test_stored_modes_are_noted(check: Check, folder: Path) -> None:
    """Images that are not plain RGB are named with how they are read, without an error."""
    Image.new("P", (20, 10)).save(folder / "1.png", transparency=b"\0")
    Image.fromarray(np.zeros((10, 20), np.uint16)).save(folder / "2.png")
    found = check(_sound_tree())
    assert not found.errors
    assert in_words(found.notes, 5) == [
        "images stored as P + transparency (P: the palette's colours; transparency: ignored: the "
        "stored colours count) (1): 1.png",
        "images stored as 16-bit grey (16-bit grey: scaled by the range of the type: 65535 "
        "becomes 255, rounded) (1): 2.png",
    ]


def test_options_say_how_images_are_read(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a config the limit of pixels and the turning by EXIF are options."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (20, 10)).save(folder / "1.png", exif=exif)
    (folder / "set.json").write_text(json.dumps(_sound_tree()), encoding="utf-8")
    words = ["data-check", str(folder / "set.json"), "--images", str(folder)]
    assert main(words) == 1
    assert "1.png (is 10x20, annotated 20x10)" in capsys.readouterr().out
    assert main([*words, "--as-stored"]) == 0
    assert main([*words, "--as-stored", "--max-megapixels", "0.0001"]) == 1
    assert "0.1 megapixels, data.max_megapixels is 0.0001" in capsys.readouterr().out
    assert main([*words, "--max-megapixels", "0"]) == 2
    assert "'max_megapixels': expected a number greater than 0" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            _add(_annotation(7, 1, 1, iscrowd=1)),
            r"left out of training: crowds \(1\): annotation 7",
        ),
        (_add(_annotation(7, 1, 1, bbox=[2, 2, 0, 4])), "boxes without area .1.: annotation 7"),
        (_add(_annotation(7, 1, 1, bbox=[2, 2, -4, 4])), "boxes without area .1.: annotation 7"),
        (
            _add(_annotation(7, 1, 1, segmentation=[])),
            "without a mask, which train boxes alone .1.: annotation 7",
        ),
        (
            _add(
                _annotation(
                    7, 1, 1, bbox=[15, 2, 9, 4], segmentation=[[15, 2, 20, 2, 20, 6, 15, 6]]
                )
            ),
            "boxes that leave .*annotation 7",
        ),
        (
            _add(_annotation(7, 1, 1, segmentation=[[*SQUARE[:6], 2, 30]])),
            "polygons that leave .*annotation 7",
        ),
        (
            _add(_annotation(7, 1, 1, segmentation=[SQUARE, [1.0, 2.0]])),
            "parts that are not polygons.*annotation 7",
        ),
        (
            lambda tree: tree["annotations"].pop(0),
            r"left out of training: images without annotations \(1\): 1.png",
        ),
        (
            lambda tree: tree["categories"].append({"id": 3, "name": "c"}),
            r"without instances .1.: c",
        ),
        (
            lambda tree: tree["annotations"].pop(1) and tree["categories"][1].update(id=4),
            "ids are not 1 to 2 but range from 1 to 4",
        ),
        (
            lambda tree: tree["categories"][1].update(name="a"),
            r"names shared by several ids .1.: a",
        ),
        (
            lambda tree: tree["annotations"][0].pop("area"),
            "1 values of annotations.area are missing or not above 0; computed from the masks",
        ),
        (
            lambda tree: tree["annotations"][0].pop("iscrowd"),
            "1 values of annotations.iscrowd are missing; taken as 0",
        ),
        (
            lambda tree: (
                tree["categories"].append({"id": 0, "name": "all"})
                or tree["categories"][0].update(supercategory="all")
            ),
            r"categories that only group others, yet count as a class \(1\): all",
        ),
        (
            lambda tree: tree["annotations"][0].update(iscrowd=1),
            r"left out of training: images with only crowds \(1\): 1.png",
        ),
        (
            lambda tree: tree["images"][1].update(file_name="1.png"),
            r"files listed for several images \(1\): 1.png",
        ),
    ],
)
def test_what_is_handled_is_a_note(
    check: Check, change: Callable[[Tree], Any], expected: str
) -> None:
    """Each oddity is noted with its entry, and is no error in training."""
    tree = copy.deepcopy(_sound_tree())
    change(tree)
    found = check(tree)
    assert found.errors == {}
    assert any(re.search(expected, line) for line in in_words(found.notes, 5))


def test_a_pixel_beyond_the_edge_is_rounding(check: Check) -> None:
    """Boxes and polygons may stick out by one pixel without a note."""
    tree = _sound_tree()
    outline = [10.0, 5.0, 20.9, 5.0, 20.9, 10.9]
    tree["annotations"].append(
        _annotation(7, 1, 1, bbox=[10.0, 5.0, 10.9, 5.9], segmentation=[outline])
    )
    assert check(tree).notes == {}


def test_testing_needs_objects(check: Check) -> None:
    """Crowds alone stop the evaluation; an object without a mask stops that of masks alone."""
    tree = _sound_tree()
    tree["annotations"].append(_annotation(7, 1, 1, bbox=[9.0, 2.0, 4.0, 4.0], segmentation=[]))
    found = check(tree, "test")
    assert found.errors == {}
    expected = "annotations without a mask, for which masks are not evaluated (1): annotation 7"
    assert in_words(found.notes, 5) == [expected]
    tree["annotations"] = [_annotation(8, 1, 1, iscrowd=1)]
    (line,) = in_words(check(tree, "test").errors, 5)
    assert "has no object; average precision" in line


def test_categories_of_two_sets_are_compared(check: Check) -> None:
    """An id of one set alone is an error, and so is another name of the same id; case is not."""
    train = check(_sound_tree())
    tree = _sound_tree()
    tree["categories"] = [{"id": 1, "name": "x"}, {"id": 2, "name": "B "}, {"id": 7, "name": "c"}]
    test = check(tree, "test")
    compare_sets(train, test)
    assert in_words(test.errors, 5) == [
        "category ids in only one of the two sets (1): 7 (c)",
        "categories named differently than in training (1): 1 (a, here x)",
    ]


def test_empty_images_follow_the_config(check: Check, folder: Path) -> None:
    """Only annotations of the training set are reported as left out of training."""
    tree = _sound_tree()
    tree["annotations"] = [entry for entry in tree["annotations"] if entry["image_id"] == 1]
    assert "left out of training: images without annotations" in check(tree).notes
    kept = check_set(folder / "set.json", folder, "train", keep_empty=True)
    assert kept.notes["images without annotations"] == ["2.png"]


def test_images_in_both_sets_are_noted(check: Check, folder: Path) -> None:
    """A file that both sets list is named; another file of the same name is another image."""
    train, test = check(_sound_tree()), check(_sound_tree(), "test")
    compare_sets(train, test)
    assert in_words(test.notes, 5) == ["images that are also in the training set (2): 1.png, 2.png"]
    (folder / "other").mkdir()
    for number in (1, 2):
        Image.new("RGB", (20, 10)).save(folder / "other" / f"{number}.png")
    other = check_set(folder / "set.json", folder / "other", "test")
    compare_sets(train, other)
    assert other.notes == {}


def test_many_entries_are_counted() -> None:
    """Entries beyond the limit are only counted."""
    assert in_words({"x": list("abcde")}, 2) == ["x (5): a, b, and 3 more"]


def test_command_checks_both_sets_of_a_config(
    make_recipe: Callable[..., Recipe],
    shapes_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Counts, pages and the JSON file of drawn shapes; overrides reach the data."""
    write_config(make_recipe(), tmp_path / "recipe.yaml")
    options = ["--preview", str(tmp_path / "page.html"), "--out", str(tmp_path / "found.json")]
    assert main(["data-check", str(tmp_path / "recipe.yaml"), *options]) == 0
    text = capsys.readouterr().out
    assert "train: 6 images" in text
    assert "test: 3 images" in text
    assert "no problems found" in text
    tree = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))
    assert tree["train"]["num_images"] == 6
    assert tree["test"]["errors"] == {}
    for role, count in (("train", 6), ("test", 3)):
        page = (tmp_path / f"page-{role}.html").read_text(encoding="utf-8")
        assert page.count("<article") == count
        assert page.count('class="mask"') == tree[role]["num_annotations"]
        assert "://" not in page

    words = ["--role", "test", f"data.test_images={shapes_folder / 'train'}"]
    assert main(["data-check", str(tmp_path / "recipe.yaml"), *words]) == 0
    assert "train: " not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "exit_code", "last"),
    [
        ([], 0, "no problems found"),
        (["data.test_annotations=absent.json"], 1, "problems found: 1"),
        (["--role", "test", "data.test_annotations=absent.json"], 2, None),
        (["data.train_annotations=absent.json"], 2, None),
        (["data.train_images=absent"], 1, "problems found: 1"),
    ],
)
def test_exit_codes_are_those_of_pretraining_s_check(
    make_recipe: Callable[..., Recipe],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    exit_code: int,
    last: str | None,
) -> None:
    """0: no problems; 1: problems were found; 2, and an error line: there is nothing to check."""
    write_config(make_recipe(), tmp_path / "recipe.yaml")
    assert main(["data-check", str(tmp_path / "recipe.yaml"), *words]) == exit_code
    captured = capsys.readouterr()
    assert captured.out.splitlines()[-1:] == ([] if last is None else [last])
    assert ("error: cannot read annotations 'absent.json'" in captured.err) == (exit_code == 2)


def test_command_names_errors_and_fails(
    check: Check, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 1 and a line per finding; the page shows what is usable."""
    tree = _sound_tree()
    tree["annotations"].append(_annotation(7, 9, 1))
    check(tree)
    (folder / "2.png").unlink()
    page = folder / "page.html"
    words = [
        "data-check",
        str(folder / "set.json"),
        "--images",
        str(folder),
        "--preview",
        str(page),
    ]
    assert main(words) == 1
    captured = capsys.readouterr()
    assert "error: annotations of an image that is not listed (1): annotation 7" in captured.out
    assert "(1): 2.png" in captured.out
    assert captured.out.splitlines()[-1] == "problems found: 2"
    assert page.read_text(encoding="utf-8").count("<article") == 1


def test_hostile_text_is_escaped(folder: Path) -> None:
    """Category names, file names and findings reach the page as text only."""
    name = f"{TEXT}.png".replace("/", "")
    (folder / "1.png").rename(folder / name)
    tree = _sound_tree()
    tree["images"][0]["file_name"] = name
    tree["images"][1]["file_name"] = f"absent {TEXT}"
    tree["categories"][0]["name"] = TEXT
    path = folder / f"{TEXT}.json"
    path.write_text(json.dumps(tree), encoding="utf-8")
    page = folder / "page.html"
    words = ["data-check", str(path), "--images", str(folder), "--preview", str(page)]
    assert main(words) == 1
    text = page.read_text(encoding="utf-8")
    assert "<img" not in text
    assert "&lt;img src=x onerror=alert(1)&gt;&amp;amp;&#34;&#39;" in text


def test_limits_come_from_the_config(
    make_recipe: Callable[..., Recipe], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Detections kept and input sizes are the recipe's, with overrides; findings name their set."""
    write_config(make_recipe(), tmp_path / "recipe.yaml")
    words = ["data-check", str(tmp_path / "recipe.yaml")]
    assert main([*words, "sampling.detections_per_image=1"]) == 0
    train, test = capsys.readouterr().out.split("\ntest: ")
    assert "images with more objects than sampling.detections_per_image=1 (" in train
    assert "detections_per_image=1; a perfect detector scores " in test
    assert "objects smaller than 16 pixels" in train
    large = ["input.train_short_sides_pixels=[800]", "input.test_short_side_pixels=800"]
    assert main([*words, *large, "input.max_side_pixels=800"]) == 0
    assert "objects smaller" not in capsys.readouterr().out


def test_boxes_that_cannot_be_meant_are_errors(
    shapes_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Findings of boxes are printed and written, on the page and in the file, with exit code 1."""
    path = shapes_folder / "annotations" / "instances_train.json"
    tree = json.loads(path.read_text(encoding="utf-8"))
    copies = [
        {**entry, "id": entry["id"] + 1000, "bbox": list(entry["bbox"])}
        for entry in tree["annotations"]
    ]
    moved = tree["annotations"][0]
    moved["bbox"][0] = 40.0 if moved["bbox"][0] < 20 else 0.0
    tree["annotations"] += copies
    changed = tmp_path / "changed.json"
    changed.write_text(json.dumps(tree), encoding="utf-8")
    page, out = tmp_path / "page.html", tmp_path / "found.json"
    words = ["data-check", str(changed), "--images", str(shapes_folder / "train")]
    assert main([*words, "--preview", str(page), "--out", str(out)]) == 1
    text = capsys.readouterr().out
    errors = json.loads(out.read_text(encoding="utf-8"))["train"]["errors"]
    assert list(map(len, errors.values())) == [1, len(copies) - 1]
    for what, entries in errors.items():
        assert f"error: {what} ({len(entries)})" in text
        assert f"{what} ({len(entries)})" in page.read_text(encoding="utf-8")


def test_a_form_of_all_boxes_is_one_error(check: Check) -> None:
    """A file of boxes in another form has that fault alone, as training says it."""
    tree = _sound_tree()
    for entry in tree["annotations"]:
        x, y, width, height = entry["bbox"]
        entry["bbox"] = [x / 20, y / 10, width / 20, height / 10]
    (line,) = in_words(check(tree).errors, 5)
    assert re.search(r"seems to be \[x, y, .* in fractions of the image, .* \(3\)", line)


@pytest.mark.parametrize(
    ("pixels", "expected"),
    [
        (np.full((10, 20), 70_000, np.int32), "error: .*integers of 32 bits .*70000"),
        (np.full((10, 20), 300, np.uint16), "note: images stored as 16-bit grey .*1.tif"),
        (np.full((10, 20), 0.5, np.float32), "note: images stored as float grey .*1.tif"),
        (np.full((10, 20), 9.0, np.float32), "error: .*floats from 9 to 9, expected 0 to 1"),
    ],
)
def test_depths_above_eight_bits_are_named(
    check: Check, folder: Path, pixels: Any, expected: str
) -> None:
    """Deep images are a note that says how they are read, or an error if they are not."""
    Image.fromarray(pixels).save(folder / "1.tif")
    tree = _sound_tree()
    tree["images"][0]["file_name"] = "1.tif"
    found = check(tree)
    lines = [f"error: {line}" for line in in_words(found.errors, 5)]
    lines += [f"note: {line}" for line in in_words(found.notes, 5)]
    (line,) = lines
    assert re.match(expected, line)


COCO = Path(os.environ.get("RSA_DATA", "")) / "coco_mini"
needs_coco = pytest.mark.skipif("RSA_DATA" not in os.environ, reason="RSA_DATA is not set")


@pytest.mark.real_data
@needs_coco
@pytest.mark.parametrize("role", ["train", "test"])
@pytest.mark.parametrize(("split", "num_crowds"), [("train", 6), ("val", 3)])
def test_real_coco(split: str, num_crowds: int, role: Any) -> None:
    """COCO's photographs and annotations have no error; crowds, gaps and absences are all."""
    path = COCO / f"annotations/instances_{split}2017.json"
    found = check_set(path, COCO / f"{split}2017", role)
    assert found.errors == {}
    prefix = "left out of training: " if role == "train" else ""
    assert len(found.notes[f"{prefix}crowds"]) == num_crowds
    assert any("not 1 to 80 but range from 1 to 90" in what for what in found.notes)
    others = {
        "categories without instances",
        f"{prefix}crowds",
        f"{prefix}images without annotations",
    }
    assert {what for what in found.notes if "not 1 to 80" not in what} <= others


def _off(entry: Tree, **_: int) -> None:
    entry["bbox"][0] += 60


def _as_corners(entry: Tree, **_: int) -> None:
    x, y, width, height = entry["bbox"]
    entry["bbox"] = [x, y, x + width, y + height]


def _as_centre(entry: Tree, **_: int) -> None:
    x, y, width, height = entry["bbox"]
    entry["bbox"] = [x + width / 2, y + height / 2, width, height]


def _as_fractions(entry: Tree, width: int, height: int) -> None:
    sides = (width, height) * 2
    entry["bbox"] = [value / side for value, side in zip(entry["bbox"], sides, strict=True)]


@pytest.mark.real_data
@needs_coco
@pytest.mark.parametrize(
    ("change", "expected", "least"),
    [
        (_off, "boxes off their masks", 0.6),
        (_as_corners, r"bbox seems to be \[x0, y0, x1, y1\], expected", 1),
        (_as_centre, r"bbox seems to be \[centre x, centre y, width, height\], expected", 1),
        (_as_fractions, r"bbox seems to be \[x, y, width, height\] in fractions", 1),
    ],
)
@pytest.mark.parametrize("split", ["train", "val"])
def test_real_coco_written_wrongly(
    split: str, change: Callable[..., None], expected: str, least: float, tmp_path: Path
) -> None:
    """A change to all boxes is the only error, and names at least this share of them."""
    path = COCO / f"annotations/instances_{split}2017.json"
    tree = json.loads(path.read_text(encoding="utf-8"))
    images = {image["id"]: image for image in tree["images"]}
    for entry in tree["annotations"]:
        image = images[entry["image_id"]]
        change(entry, width=image["width"], height=image["height"])
    (tmp_path / "set.json").write_text(json.dumps(tree), encoding="utf-8")
    ((what, entries),) = check_set(
        tmp_path / "set.json", COCO / f"{split}2017", "train"
    ).errors.items()
    assert re.search(expected, what)
    assert len(entries) >= least * len(tree["annotations"])
