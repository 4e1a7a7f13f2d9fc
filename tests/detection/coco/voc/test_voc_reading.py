"""Test that PASCAL VOC's folders are read as a COCO-format set, and what is refused."""

import logging
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from benchmarks.voc_rendering import render_voc, voc_box
from detection.coco.data_settings import VOC_CLASSES, VocDataConfig
from detection.coco.evaluation import evaluate_in_detail
from detection.coco.opening import annotations_sha256, open_set, read_sound
from detection.coco.sets import open_coco
from detection.coco.voc.evaluation import with_voc_metrics
from detection.recipe.recipe import Recipe
from detection.survey.data_check import check_recipe
from rsa_pretrain.data.read_settings import DEFAULT_RULES
from rsa_pretrain.plumbing.config.files import load_config
from rsa_pretrain.plumbing.errors import UserError

SIZE = (20, 30)


def xml(*objects: str, size: str | None = None) -> str:
    """An annotation file."""
    stated = "<size><width>30</width><height>20</height></size>" if size is None else size
    return f"<annotation><filename>x.jpg</filename>{stated}{''.join(objects)}</annotation>"


def thing(name: str = "cat", corners: tuple[int, ...] = (3, 4, 12, 9), difficult: int = 0) -> str:
    """An object."""
    sides = zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True)
    box = "".join(f"<{tag}>{value}</{tag}>" for tag, value in sides)
    return (
        f"<object><name>{name}</name><pose>Left</pose><truncated>1</truncated>"
        f"<difficult>{difficult}</difficult><bndbox>{box}</bndbox></object>"
    )


@pytest.fixture
def kit(tmp_path: Path) -> Path:
    """Sets 2007/trainval (000001, 000002), 2012/trainval (2008_000001) and 2007/test (000003)."""
    root = tmp_path / "VOCdevkit"
    sets = {
        "2007/trainval": {"000001": xml(thing(), thing("dog", (1, 1, 30, 20))), "000002": xml()},
        "2012/trainval": {"2008_000001": xml(thing("person", difficult=1))},
        "2007/test": {"000003": xml(thing(), thing("dog", difficult=1))},
    }
    for name, images in sets.items():
        year, _, image_set = name.partition("/")
        folder = root / f"VOC{year}"
        for part in ("Annotations", "JPEGImages", "ImageSets/Main"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        for image_id, text in images.items():
            (folder / "Annotations" / f"{image_id}.xml").write_text(text, encoding="utf-8")
            Image.new("RGB", SIZE[::-1]).save(folder / "JPEGImages" / f"{image_id}.jpg")
        lines = "".join(f"{image_id}\n" for image_id in images)
        (folder / "ImageSets" / "Main" / f"{image_set}.txt").write_text(lines, encoding="utf-8")
    return root


def settings(root: Path, **changes: Any) -> VocDataConfig:
    """Train on both years, test on 2007."""
    sets = {"train": ("2007/trainval", "2012/trainval"), "test": ("2007/test",)}
    return VocDataConfig(name="kit", format="voc", root=root, **{**sets, **changes})


def test_lists_are_joined_in_order(kit: Path) -> None:
    """Ids from 1 in the lists' order, classes in the kit's, boxes from the first pixel's edge."""
    coco = open_set(settings(kit), "train")
    assert [(image["id"], image["file_name"]) for image in coco.images] == [
        (1, "VOC2007/JPEGImages/000001.jpg"),
        (2, "VOC2007/JPEGImages/000002.jpg"),
        (3, "VOC2012/JPEGImages/2008_000001.jpg"),
    ]
    assert coco.sizes == dict.fromkeys((1, 2, 3), SIZE)
    assert coco.category_names == dict(enumerate(VOC_CLASSES, start=1))
    assert len(coco.category_names) == 20
    found = [
        (entry["image_id"], coco.category_names[entry["category_id"]], entry["bbox"])
        for entry in coco.tree["annotations"]
    ]
    assert found == [
        (1, "cat", [2, 3, 10, 6]),
        (1, "dog", [0, 0, 30, 20]),
        (3, "person", [2, 3, 10, 6]),
    ]
    assert [entry.get("difficult") for entry in coco.tree["annotations"]] == [None, None, 1]
    assert (coco.annotations_path, coco.images_dir, coco.repairs) == (kit, kit, ())
    one = open_set(settings(kit), "test")
    assert one.annotations_path == kit / "VOC2007/ImageSets/Main/test.txt"


def test_classes_are_detectron2_s() -> None:
    """In its order, by which its labels are numbered."""
    pytest.importorskip("detectron2")
    from detectron2.data.datasets.pascal_voc import CLASS_NAMES

    assert VOC_CLASSES == CLASS_NAMES


@pytest.mark.detectron2
def test_detectron2_s_reader_finds_the_same(kit: Path) -> None:
    """Difficult objects included."""
    from detectron2.data.datasets.pascal_voc import load_voc_instances

    (kit / "VOC2007/Annotations/000002.xml").write_text(xml(thing(difficult=1)), encoding="utf-8")
    theirs = load_voc_instances(str(kit / "VOC2007"), "trainval", VOC_CLASSES)
    coco = open_set(settings(kit, train=("2007/trainval",)), "train")
    assert [entry["file_name"] for entry in theirs] == [
        str(kit / image["file_name"]) for image in coco.images
    ]
    ours = [
        (entry["category_id"] - 1, [x, y, x + width, y + height])
        for entry in coco.tree["annotations"]
        for x, y, width, height in [entry["bbox"]]
    ]
    found = [
        (entry["category_id"], entry["bbox"]) for image in theirs for entry in image["annotations"]
    ]
    assert found == ours
    assert len(found) == 3


def test_own_classes_and_folders(kit: Path) -> None:
    """The year may be any word, and the names are those stated."""
    (kit / "VOC2007").rename(kit / "VOCboats")
    data = settings(kit, test=("boats/test",), classes=("dog", "cat"))
    coco = open_set(data, "test")
    assert coco.category_names == {1: "dog", 2: "cat"}
    assert [entry["category_id"] for entry in coco.tree["annotations"]] == [2, 1]


def test_a_missing_size_is_the_image_s(kit: Path) -> None:
    """As with other tools' files."""
    (kit / "VOC2007/Annotations/000003.xml").write_text(xml(thing(), size=""), encoding="utf-8")
    assert open_set(settings(kit), "test").sizes == {1: SIZE}


def test_clipped_boxes_are_said(kit: Path, caplog: pytest.LogCaptureFixture) -> None:
    """One line each for boxes that leave the image and those outside it, not for poses."""
    far, out = thing(corners=(25, 4, 40, 9)), thing(corners=(50, 50, 60, 60))
    path = kit / "VOC2007/Annotations/000003.xml"
    path.write_text(xml(thing(), far, out, thing(corners=(0, 1, 5, 5))), encoding="utf-8")
    with caplog.at_level(logging.WARNING):
        coco = open_set(settings(kit), "test")
    assert [entry["bbox"] for entry in coco.tree["annotations"]][1:] == [
        [24, 3, 6, 6],
        [0, 0, 5, 5],
    ]
    assert sorted(coco.repairs) == [
        "1 boxes that begin at 0, although VOC counts from 1; clipped",
        "1 objects that extend beyond their images; their boxes are clipped",
        "1 objects without area inside their images, left out",
    ]
    assert [line.partition(": ")[2] for line in caplog.messages] == list(coco.repairs)


def _write_xml(text: str) -> Callable[[Path], None]:
    return lambda kit: _replace(kit / "VOC2007/Annotations/000003.xml", text)


def _replace(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


LIST = "VOC2007/ImageSets/Main/test.txt"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda kit: (kit / "VOC2007/Annotations/000003.xml").unlink(),
            r"\(2007/test\) has images without an annotation file \(1\): "
            r"VOC2007/JPEGImages/000003\.jpg \(no VOC2007/Annotations/000003\.xml\)",
        ),
        (
            lambda kit: (kit / "VOC2007/JPEGImages/000003.jpg").unlink(),
            r"1 of 1 images of '.*test\.txt' are not in '.*': VOC2007/JPEGImages/000003\.jpg$",
        ),
        (
            _write_xml(xml(thing("cats"))),
            r"objects of a class that data\.classes does not list \(1\): 'cats' \(VOC2007/Ann",
        ),
        (_write_xml(xml(thing("DOG"))), r"'DOG' \(.*3\.xml; the nearest is 'dog'\)$"),
        (_write_xml(xml(thing("zzz"))), r"'zzz' \(VOC2007/Annotations/000003\.xml\)$"),
        (
            _write_xml("<annotation>"),
            r"files that cannot be read \(1\): '.*3\.xml' is not readable",
        ),
        (_write_xml(xml(thing(corners=(9, 4, 3, 9)))), r"'.*3\.xml' has an inverted box: xmin 9"),
        (_write_xml(xml().replace("30", "-3")), r"000003\.xml' has an impossible size"),
        (
            lambda kit: (kit / LIST).unlink(),
            r"no list '.*test\.txt' of data\.test; beside it are tr",
        ),
        (lambda kit: _replace(kit / LIST, "\n"), r"test\.txt' lists no images; expected one image"),
        (
            lambda kit: _replace(kit / LIST, "000003  1\n"),
            r"has a line '000003 1', expected one image id a line; the lists of single classes",
        ),
        (lambda kit: os.truncate(kit / LIST, 2**24 + 1), r"test\.txt': it is larger than 16 MiB$"),
        (
            lambda kit: os.truncate(kit / "VOC2007/Annotations/000003.xml", 2**24 + 1),
            r"files that cannot be read \(1\): cannot read '.*3\.xml': it is larger than 16 MiB$",
        ),
        (
            lambda kit: _replace(kit / LIST, "../000003\n"),
            r"has a line '\.\./000003', expected one",
        ),
        (
            lambda kit: _replace(kit / LIST, "000003\n000003\n"),
            r"images that are listed twice \(1\): VOC2007/JPEGImages/000003\.jpg",
        ),
        (
            lambda kit: (kit / "VOC2007").rename(kit / "2007"),
            r"; data\.root should be the folder VOCdevkit, with VOC2007/ImageSets/Main in it; "
            r"'rsa-detect download voc0712'",
        ),
    ],
)
def test_what_is_wrong_is_one_line(
    kit: Path, change: Callable[[Path], object], message: str
) -> None:
    """It names the file and what was expected; nothing is skipped."""
    change(kit)
    with pytest.raises(UserError, match=message) as caught:
        open_set(settings(kit), "test")
    assert "\n" not in str(caught.value)


def test_a_byte_order_mark_is_no_part_of_an_id(kit: Path) -> None:
    """Some editors begin a list with one."""
    (kit / LIST).write_text("000003\n", encoding="utf-8-sig")
    (image,) = open_set(settings(kit), "test").images
    assert image["file_name"] == "VOC2007/JPEGImages/000003.jpg"


def test_without_size_and_image_there_is_no_size(kit: Path) -> None:
    """The image's fault is named."""
    (kit / "VOC2007/Annotations/000003.xml").write_text(xml(size=""), encoding="utf-8")
    (kit / "VOC2007/JPEGImages/000003.jpg").write_text("no image", encoding="utf-8")
    with pytest.raises(UserError, match=r"images whose size neither .* states \(1\): .*000003"):
        open_set(settings(kit), "test")


@pytest.mark.parametrize("place", ["VOC2007", "..", "../lost/far"])
def test_another_root_is_recognised(kit: Path, place: str) -> None:
    """One folder too deep or too high: the right one is named; elsewhere, what to do."""
    with pytest.raises(UserError, match=r"data\.root") as caught:
        open_set(settings(kit / place), "test")
    expected = "rsa-detect download" if "lost" in place else f"set data.root to '{kit}'"
    found = str(caught.value).replace(f"{kit}/../VOCdevkit", str(kit))
    assert expected in found


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("data.train=[trainval]", r"'data\.train': expected sets such as 2007/trainval"),
        ("data.train=[2007/a/b]", r"'data\.train': expected sets such as 2007/trainval"),
        ("data.test=[2007/..]", r"'data\.test': expected sets such as 2007/trainval"),
        ("data.test=[2007/test, 2007/test]", r"'data\.test': a set is listed twice"),
        ("data.test=2007/test", r"'data\.test': expected a list such as \[2007/test\] \(found"),
        ("data.classes=cat", r"'data\.classes': expected a list such as \[cat\] \(found"),
        ("data.classes=[a, a]", r"'data\.classes': class names must be distinct"),
        ("data.classes=[' a']", r"'data\.classes': .* without surrounding blanks"),
        ("data.format=coco", r"'data\.root' is not a setting of .* but of another 'data\.format'"),
        ("data.format=yolo", r"'data\.format' is 'yolo', expected one of 'coco', 'voc'"),
        ("data.clases=[a]", r"unknown key 'data\.clases'; the nearest .* 'data\.classes'"),
    ],
)
def test_settings_are_checked(change: str, message: str) -> None:
    """When they are read."""
    with pytest.raises(UserError, match=message):
        load_config(Recipe, "data/voc0712", [change], {"name": "x"})


def test_a_section_without_format_is_recognised() -> None:
    """PASCAL VOC's settings alone would be eight mistakes in COCO's."""
    sets = {"root": "kit", "train": ["2007/train"], "test": ["2007/val"]}
    with pytest.raises(UserError, match=r"^'data': root, train and test .*: add data\.format=voc$"):
        load_config(Recipe, start={"name": "x", "data": {"name": "x", **sets}})


def test_the_shipped_config_is_07_and_12() -> None:
    """Trained on both years' trainval, tested on 2007's test."""
    data = load_config(Recipe, "data/voc0712", start={"name": "x"}).data
    assert isinstance(data, VocDataConfig)
    assert (data.train, data.test) == (("2007/trainval", "2012/trainval"), ("2007/test",))
    assert (data.classes, data.root) == (VOC_CLASSES, Path("data/VOCdevkit"))


def test_the_hash_is_of_content_alone(kit: Path) -> None:
    """Moving the folder does not change it; an annotation, an id or the classes do."""
    data = settings(kit)
    before = annotations_sha256(data, "train")
    assert before != annotations_sha256(data, "test")
    moved = kit.rename(kit.parent / "elsewhere")
    data = settings(moved)
    assert annotations_sha256(data, "train") == before
    assert annotations_sha256(settings(moved, classes=VOC_CLASSES[::-1]), "train") != before
    renamed = moved / "VOC2012/Annotations/2008_000009.xml"
    (moved / "VOC2012/Annotations/2008_000001.xml").rename(renamed)
    _replace(moved / "VOC2012/ImageSets/Main/trainval.txt", "2008_000009\n")
    assert annotations_sha256(data, "train") != before
    renamed.rename(moved / "VOC2012/Annotations/2008_000001.xml")
    _replace(moved / "VOC2012/ImageSets/Main/trainval.txt", "2008_000001\n")
    assert annotations_sha256(data, "train") == before
    (moved / "VOC2012/Annotations/2008_000001.xml").write_text(xml(thing("dog")), encoding="utf-8")
    assert annotations_sha256(data, "train") != before
    (moved / "VOC2012/Annotations/2008_000001.xml").unlink()
    with pytest.raises(UserError, match=r"cannot read '.*2008_000001\.xml'"):
        annotations_sha256(data, "train")


def _checked(kit: Path, **changes: Any) -> list[Any]:
    tree = {"name": "x", "data": settings(kit, **changes).model_dump(mode="json")}
    recipe = load_config(Recipe, start=tree)
    return check_recipe(recipe, None, DEFAULT_RULES)


def test_data_check_counts_difficult_objects(kit: Path) -> None:
    """A sound set has notes alone, one of them of these."""
    train, test = _checked(kit)
    assert train.errors == test.errors == {}
    for found in (train, test):
        (note,) = (what for what in found.notes if what.startswith("objects marked difficult"))
        assert found.notes[note] == (
            ["person (VOC2012/Annotations/2008_000001.xml)"]
            if found is train
            else ["dog (VOC2007/Annotations/000003.xml)"]
        )
    assert train.category_sizes[8] == ("cat", 1, 1)
    assert test.category_sizes[12] == ("dog", 1, 1)


def test_data_check_finds_everything_at_once(kit: Path) -> None:
    """Faults of annotation files, images and lists, each with its entries."""
    (kit / "VOC2007/Annotations/000001.xml").write_text(xml(thing("cats")), encoding="utf-8")
    (kit / "VOC2007/Annotations/000002.xml").unlink()
    (kit / "VOC2012/JPEGImages/2008_000001.jpg").unlink()
    Image.new("RGB", (7, 7)).save(kit / "VOC2007/JPEGImages/000001.jpg")
    train, test = _checked(kit)
    assert train.errors == {
        "objects of a class that data.classes does not list": [
            "'cats' (VOC2007/Annotations/000001.xml; the nearest is 'cat')"
        ],
        "images without an annotation file": [
            "VOC2007/JPEGImages/000002.jpg (no VOC2007/Annotations/000002.xml)"
        ],
        "images whose size differs from the annotated one": [
            "VOC2007/JPEGImages/000001.jpg (is 7x7, annotated 30x20)"
        ],
        f"images that are not in '{kit}'": ["VOC2012/JPEGImages/2008_000001.jpg"],
    }
    assert test.errors == {}
    (kit / LIST).unlink()
    _, test = _checked(kit)
    (message,) = test.errors
    assert re.match(r"there is no list '.*test\.txt' of data\.test", message)


def test_data_check_notes_shared_images(kit: Path) -> None:
    """An image in training and test sets."""
    _, test = _checked(kit, train=("2007/trainval", "2007/test"))
    assert test.notes["images that are also in the training set"] == [
        "VOC2007/JPEGImages/000003.jpg"
    ]


@pytest.mark.real_data
@pytest.mark.skipif("RSA_DATA" not in os.environ, reason="RSA_DATA is not set")
def test_real_images_come_back(tmp_path: Path) -> None:
    """COCO's images rendered and read: the same rounded boxes, crowds difficult, and AP of 100."""
    folder = Path(os.environ["RSA_DATA"]) / "coco_mini"
    coco = open_coco(folder / "annotations/instances_val2017.json", folder / "val2017")
    render_voc(coco, tmp_path / "kit", "2007/test")
    names = tuple(coco.category_names[number] for number in coco.category_ids)
    data = settings(tmp_path / "kit", classes=names)
    found = read_sound(data, "test")
    assert [found.sizes[number] for number in sorted(found.sizes)] == [
        (image["height"], image["width"]) for image in coco.images
    ]
    expected, objects = [], []
    for rank, image in enumerate(coco.images, start=1):
        for entry in coco.tree["annotations"]:
            if entry["image_id"] == image["id"]:
                xmin, ymin, xmax, ymax = voc_box(entry, image["height"], image["width"])
                box = [xmin - 1, ymin - 1, xmax - xmin + 1, ymax - ymin + 1]
                x, y, width, height = entry["bbox"]
                sides = [round(x), round(y), round(x + width), round(y + height)]
                if min(width, height) > 1:
                    assert [box[0], box[1], box[0] + box[2], box[1] + box[3]] == sides
                name = coco.category_names[entry["category_id"]]
                expected.append((rank, name, box, entry["iscrowd"]))
    for entry in found.tree["annotations"]:
        name = found.category_names[entry["category_id"]]
        objects.append((entry["image_id"], name, entry["bbox"], entry.get("difficult", 0)))
    assert objects == expected
    assert 0 < sum(is_difficult for *_, is_difficult in objects) < len(objects) / 10

    perfect = [
        {key: entry[key] for key in ("image_id", "category_id", "bbox")} | {"score": 0.5}
        for entry in found.tree["annotations"]
    ]
    evaluation = evaluate_in_detail(found.tree, perfect, ["bbox"])
    metrics = with_voc_metrics(evaluation, found.tree, perfect).metrics
    assert len(metrics) == 12
    assert list(metrics.values()) == pytest.approx([100.0] * 12)
