import base64
import io
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as mask_codec

from detection.__main__ import main
from detection.coco.importers.import_annotations import ImportConfig, import_annotations
from detection.coco.masks import encode_mask
from detection.coco.sets import CocoSet, open_coco, training_images
from detection.survey.data_check import check_set
from rsa_pretrain.data.read_settings import ReadRules
from rsa_pretrain.plumbing.errors import UserError

Tree = dict[str, Any]


def _by_image(coco: CocoSet) -> list[tuple[Tree, list[tuple[str, Tree]]]]:
    names = coco.category_names
    return [
        (
            image,
            [
                (names[entry["category_id"]], entry)
                for entry in coco.tree["annotations"]
                if entry["image_id"] == image["id"]
            ],
        )
        for image in coco.images
    ]


def _write_labelme(coco: CocoSet, folder: Path) -> Path:
    """One JSON beside each image; parts of an object are shapes of a group, codes are masks."""
    shutil.copytree(coco.images_dir, folder)
    for image, objects in _by_image(coco):
        shapes = []
        for number, (label, entry) in enumerate(objects):
            mask = entry["segmentation"]
            common = {"label": label, "group_id": number, "flags": {}, "description": ""}
            if isinstance(mask, list):
                for outline in mask:
                    points = np.reshape(outline, (-1, 2)).tolist()
                    shapes.append({**common, "shape_type": "polygon", "points": points})
            else:
                pixels = mask_codec.decode(encode_mask(mask, (image["height"], image["width"])))
                x, y, width, height = map(int, mask_codec.toBbox(mask_codec.encode(pixels)))
                encoded = _encoded(pixels[y : y + height, x : x + width])
                points = [[x, y], [x + width - 1, y + height - 1]]
                shapes.append({**common, "shape_type": "mask", "points": points, "mask": encoded})
        tree = {
            "version": "5.5.0",
            "flags": {},
            "shapes": shapes,
            "imagePath": image["file_name"],
            "imageData": None,
            "imageHeight": image["height"],
            "imageWidth": image["width"],
        }
        path = (folder / image["file_name"]).with_suffix(".json")
        path.write_text(json.dumps(tree), encoding="utf-8")
    return folder


def _encoded(pixels: Any) -> str:
    with io.BytesIO() as file:
        Image.fromarray(np.asarray(pixels, dtype=np.uint8)).save(file, format="PNG")
        return base64.b64encode(file.getvalue()).decode("ascii")


def _write_voc(coco: CocoSet, folder: Path) -> Path:
    """Annotations/*.xml with boxes whose pixels count from 1, and JPEGImages/."""
    shutil.copytree(coco.images_dir, folder / "JPEGImages")
    (folder / "Annotations").mkdir()
    for image, objects in _by_image(coco):
        lines = []
        for label, entry in objects:
            x, y, width, height = entry["bbox"]
            lines.append(
                f"<object><name>{escape(label)}</name><bndbox><xmin>{x + 1}</xmin>"
                f"<ymin>{y + 1}</ymin><xmax>{x + width}</xmax><ymax>{y + height}</ymax></bndbox>"
                "</object>"
            )
        (folder / "Annotations" / image["file_name"]).with_suffix(".xml").write_text(
            f"<annotation><filename>{image['file_name']}</filename><size>"
            f"<width>{image['width']}</width><height>{image['height']}</height><depth>3</depth>"
            f"</size>{''.join(lines)}</annotation>",
            encoding="utf-8",
        )
    return folder


def _write_yolo(coco: CocoSet, folder: Path, *, outlines: bool) -> Path:
    """labels/*.txt and images/; an object is its box, or its only outline where it has one."""
    shutil.copytree(coco.images_dir, folder / "images")
    (folder / "labels").mkdir()
    names = [entry["name"] for entry in coco.tree["categories"]]
    (folder / "data.yaml").write_text(
        "train: images\nnames:\n" + "".join(f"  {n}: {name}\n" for n, name in enumerate(names)),
        encoding="utf-8",
    )
    for image, objects in _by_image(coco):
        sides = np.array([image["width"], image["height"]])
        lines = []
        for label, entry in objects:
            mask = entry["segmentation"]
            if outlines and isinstance(mask, list) and len(mask) == 1:
                values = (np.reshape(mask[0], (-1, 2)) / sides).ravel()
            else:
                x, y, width, height = entry["bbox"]
                box = [[x + width / 2, y + height / 2], [width, height]]
                values = (np.array(box) / sides).ravel()
            words = [f"{value:.6f}" for value in values]
            lines.append(" ".join([str(names.index(label)), *words]) + "\n")
        if lines:
            path = (folder / "labels" / image["file_name"]).with_suffix(".txt")
            path.write_text("".join(lines), encoding="ascii")
    return folder


FORMATS: dict[str, Callable[[CocoSet, Path], Path]] = {
    "labelme": _write_labelme,
    "voc": _write_voc,
    "yolo": lambda coco, folder: _write_yolo(coco, folder, outlines=False),
    "yolo outlines": lambda coco, folder: _write_yolo(coco, folder, outlines=True),
}


def _check_round_trip(coco: CocoSet, name: str, folder: Path) -> None:
    """Write a set as another tool does, import it, and compare object by object."""
    source = FORMATS[name](coco, folder / "exported")
    out = folder / "imported.json"
    _, images_dir = import_annotations(ImportConfig(source), out)
    found = open_coco(out, images_dir)
    assert found.repairs == ()
    assert len(training_images(found)) > 0
    assert check_set(out, images_dir, "train").errors == {}
    assert [image["id"] for image in found.images] == list(range(1, len(found.images) + 1))
    ids = [entry["id"] for entry in found.tree["annotations"]]
    assert ids == list(range(1, len(ids) + 1))

    expected = {image["file_name"]: (image, objects) for image, objects in _by_image(coco)}
    assert {image["file_name"] for image in found.images} == expected.keys()
    for image, objects in _by_image(found):
        original, originals = expected[image["file_name"]]
        size = (image["height"], image["width"])
        assert size == (original["height"], original["width"])
        for (label, entry), (wanted, reference) in zip(objects, originals, strict=True):
            assert label == wanted
            is_code = isinstance(reference["segmentation"], dict)
            # YOLO's six decimals are half a thousandth of a pixel here, thrice for an edge; a
            # code's box counts whole pixels. COCO's own boxes are rounded to a hundredth.
            tolerance = 1.5 if is_code and name == "labelme" else 0.02
            assert entry["bbox"] == pytest.approx(reference["bbox"], abs=tolerance)
            if "segmentation" not in entry:
                _, _, width, height = reference["bbox"]
                assert entry["area"] == pytest.approx(width * height, rel=0.005, abs=0.1)
                continue
            masks = [
                mask_codec.decode(encode_mask(part["segmentation"], size))
                for part in (entry, reference)
            ]
            assert entry["area"] == masks[0].sum()
            # Corners a thousandth of a pixel away may turn pixels at the edge.
            differing = int((masks[0] != masks[1]).sum())
            assert differing <= (0 if name == "labelme" else 0.02 * masks[1].sum() + 2)


@pytest.mark.parametrize("name", FORMATS)
def test_drawn_shapes_come_back(name: str, shapes_test_set: CocoSet, tmp_path: Path) -> None:
    """A set written as each tool writes it is the same set, within the format's rounding."""
    _check_round_trip(shapes_test_set, name, tmp_path)


@pytest.mark.real_data
@pytest.mark.parametrize("name", FORMATS)
def test_coco_comes_back(name: str, rsa_data: Path, tmp_path: Path) -> None:
    """So is real data: objects of several parts, run-length codes, images without objects."""
    folder = rsa_data / "coco_mini"
    coco = open_coco(folder / "annotations" / "instances_val2017.json", folder / "val2017")
    objects = [entry for entry in coco.tree["annotations"] if not entry["iscrowd"]]
    if name == "labelme":  # as parts that overlap no other: crowds are codes
        objects = [{**entry, "iscrowd": 0} for entry in coco.tree["annotations"]]
    kept = CocoSet(coco.annotations_path, coco.images_dir, {**coco.tree, "annotations": objects})
    _check_round_trip(kept, name, tmp_path)


# What the importer says of faults and places is tried on sets of one or two small images.


def _put(folder: Path, contents: Mapping[str, str | bytes | None]) -> Path:
    """Write files by their paths; None stands for an image of 60x40 pixels."""
    for name, content in contents.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            Image.new("RGB", (60, 40)).save(path)
        elif isinstance(content, str):
            path.write_text(content, encoding="utf-8")
        else:
            path.write_bytes(content)
    return folder


BOX = "0 0.5 0.5 0.5 0.5"
PIXELS = [15, 10, 30, 20]


def _labelme(label: str = "cat", **keys: Any) -> str:
    shape = {"label": label, "shape_type": "rectangle", "points": [[15, 10], [45, 30]]}
    return json.dumps({"shapes": [shape], **keys})


def _voc(label: str = "cat", head: str = "") -> str:
    return (
        f"<annotation>{head}<object><name>{label}</name><bndbox><xmin>16</xmin><ymin>11</ymin>"
        "<xmax>45</xmax><ymax>30</ymax></bndbox></object></annotation>"
    )


def _import(source: Path, out: Path, **choices: Any) -> tuple[Tree, Path]:
    return import_annotations(ImportConfig(source, **choices), out)


@pytest.mark.parametrize(
    ("files", "source", "tool", "images"),
    [
        ({"a.json": _labelme(), "a.png": None, "labels.txt": "cat"}, ".", "labelme", "."),
        ({"x/a.json": _labelme(), "x/a.png": None}, ".", "labelme", "."),
        ({"a.xml": _voc(), "a.png": None}, ".", "voc", "."),
        ({"Annotations/a.xml": _voc(), "JPEGImages/a.png": None}, ".", "voc", "JPEGImages"),
        (
            {"Annotations/a.xml": _voc(), "JPEGImages/a.png": None},
            "Annotations",
            "voc",
            "JPEGImages",
        ),
        (
            {
                "Annotations/a.xml": _voc(),
                "JPEGImages/a.png": None,
                "ImageSets/Main/cat_train.txt": "a 1",
            },
            ".",
            "voc",
            "JPEGImages",
        ),
        ({"a.txt": BOX, "a.png": None, "classes.txt": "cat"}, ".", "yolo", "."),
        (
            {"labels/a.txt": BOX, "labels/classes.txt": "cat", "images/a.png": None},
            ".",
            "yolo",
            "images",
        ),
        (
            {"labels/a.txt": BOX, "classes.txt": "cat", "images/a.png": None},
            "labels",
            "yolo",
            "images",
        ),
        (
            {"labels/train/a.txt": BOX, "data.yaml": "names: [cat]", "images/train/a.png": None},
            "labels/train",
            "yolo",
            "images/train",
        ),
        (
            {
                "train/labels/a.txt": BOX,
                "train/images/a.png": None,
                "data.yaml": "names: [cat]",
                "README.roboflow.txt": "x",
            },
            ".",
            "yolo",
            ".",
        ),
        (
            {"labels/train/a.txt": BOX, "data.yaml": "names: [cat]", "images/train/a.png": None},
            ".",
            "yolo",
            "images",
        ),
    ],
)
def test_layouts_are_recognised(
    files: Tree, source: str, tool: str, images: str, tmp_path: Path
) -> None:
    """The usual places of each tool need no option, and all mean the same box."""
    root = _put(tmp_path / "set", files)
    tree, images_dir = _import(root / source, tmp_path / "out.json")
    assert images_dir.resolve() == (root / images).resolve()
    assert tree["info"]["source"] == tool
    ((image,), (entry,)) = tree["images"], tree["annotations"]
    assert (images_dir / image["file_name"]).is_file()
    assert "\\" not in image["file_name"]
    assert entry == {
        "id": 1,
        "image_id": 1,
        "category_id": 1,
        "bbox": PIXELS,
        "iscrowd": 0,
        "area": 600,
    }
    assert tree["categories"] == [{"id": 1, "name": "cat"}]
    assert json.loads((tmp_path / "out.json").read_text(encoding="utf-8")) == tree


def test_images_may_lie_elsewhere(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """With the folder named, paths of another machine find their image by its name; it is told."""
    root = _put(
        tmp_path,
        {
            "json/a.json": _labelme(imagePath="..\\images\\a.png"),
            "json/b.json": _labelme(imagePath="C:\\Users\\bob\\b.png"),
            "images/a.png": None,
            "images/b.png": None,
        },
    )
    tree, _ = _import(root / "json", tmp_path / "out.json", images=root / "images")
    assert [image["file_name"] for image in tree["images"]] == ["a.png", "b.png"]
    assert caplog.messages == [
        "annotation files whose image is elsewhere than stated, found by name (2): "
        "a.json (says '../images/a.png', found 'a.png'), "
        "b.json (says 'C:/Users/bob/b.png', found 'b.png')"
    ]


@pytest.mark.parametrize(
    ("files", "choices", "message"),
    [
        ({}, {}, r"no annotation file \(\.json, \.xml, \.txt\) below"),
        ({".a.json": _labelme(), "a.png": None}, {}, "no annotation file"),
        ({"classes.txt": "cat", "a.png": None}, {}, "no annotation file"),
        (
            {"a.json": _labelme(), "a.png": None},
            {"tool": "voc"},
            r"no annotation file \(\.xml\) bel",
        ),
        (
            {"a.json": _labelme(), "b.xml": _voc(), "a.png": None},
            {},
            r"may be of labelme \(\.json\) and voc \(\.xml\); choose with --from",
        ),
        ({"a.json": _labelme()}, {}, "no image below '.*'; name their folder with --images"),
        ({"a.json": _labelme()}, {"images": Path("absent")}, "no folder of images 'absent'"),
        ({"a.json": _labelme(), "a.png": b"x"}, {}, r"cannot decode '.*a\.png'"),
        (
            {"a.json": _labelme(), "b.json": _labelme(imagePath="c.png"), "a.png": None},
            {},
            r"1 of 2 annotation files have no image below '.*': b\.json \(names 'c\.png'\); name",
        ),
        (
            {"b.txt": BOX, "c.txt": BOX, "classes.txt": "cat", "a.png": None},
            {},
            r"2 of 2 annotation files have no image below '.*': b\.txt, c\.txt; name its folder",
        ),
        (
            {"a.json": _labelme(imageHeight=40, imageWidth=61), "a.png": None},
            {},
            r"'.*a\.json' is of an image of 61x40 pixels, but '.*a\.png' has 60x40$",
        ),
        (
            {"a.xml": _voc(head="<filename>b.png</filename>"), "b.xml": _voc(), "b.png": None},
            {},
            r"'.*a\.xml' and '.*b\.xml' both annotate the image 'b\.png'; keep one",
        ),
        ({"a.json": '{"shapes": []}', "a.png": None}, {}, "no object in the 1 annotation files"),
        ({"a.txt": "", "classes.txt": "cat", "a.png": None}, {}, "no object in the 1 annotation"),
        ({"a.txt": BOX, "a.png": None}, {}, "no class names in"),
    ],
)
def test_faults_write_nothing(files: Tree, choices: Tree, message: str, tmp_path: Path) -> None:
    """Anything missing or contradictory is one error, and no file is written."""
    (tmp_path / "set").mkdir()
    with pytest.raises(UserError, match=message):
        _import(_put(tmp_path / "set", files), tmp_path / "out.json", **choices)
    assert not (tmp_path / "out.json").exists()


def test_error_says_where_images_are(tmp_path: Path) -> None:
    """Images outside the folder, or below another one, are found, and the error names the fix."""
    root = _put(
        tmp_path, {"json/a.json": _labelme(imagePath="../images/b.png"), "images/b.png": None}
    )
    Image.new("RGB", (4, 4)).save(root / "json" / "c.png")
    there = (root / "images" / "b.png").resolve()
    with pytest.raises(UserError, match=f"'{there}' is there: set --images to a folder above it"):
        _import(root / "json", tmp_path / "out.json")
    (root / "other").mkdir()
    shutil.copy(root / "json" / "c.png", root / "other" / "c.png")
    (root / "json" / "a.json").write_text(_labelme(imagePath="images/b.png"), encoding="utf-8")
    with pytest.raises(UserError, match=f"set --images to '{root}'"):
        _import(root / "json", tmp_path / "out.json", images=root / "other")


def test_turned_photographs(tmp_path: Path) -> None:
    """The size is the upright one, or with the option the stored one; the error names it."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (60, 40)).save(tmp_path / "a.jpg", exif=exif)
    upright = {"imageHeight": 60, "imageWidth": 40}
    _put(tmp_path, {"a.json": _labelme(**upright)})
    tree, _ = _import(tmp_path, tmp_path / "out.json")
    assert (tree["images"][0]["height"], tree["images"][0]["width"]) == (60, 40)
    _put(tmp_path, {"a.json": _labelme(imageHeight=40, imageWidth=60)})
    with pytest.raises(UserError, match="annotated without its EXIF orientation, give --as-stored"):
        _import(tmp_path, tmp_path / "out.json")
    arguments = ["import-annotations", str(tmp_path), str(tmp_path / "out.json"), "--as-stored"]
    assert main(arguments) == 0
    stored = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert (stored["images"][0]["height"], stored["images"][0]["width"]) == (40, 60)
    _put(tmp_path, {"a.json": _labelme(**upright)})
    rules = ReadRules(exif_orientation=False)
    with pytest.raises(UserError, match=r"40x60 pixels, but '.*a\.jpg' has 60x40$"):
        _import(tmp_path, tmp_path / "out.json", rules=rules)


def test_images_without_a_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Of YOLO's sets they have no objects; elsewhere nobody has looked at them. Both are told."""
    _put(tmp_path / "yolo", {"b.txt": BOX, "classes.txt": "cat"})
    _put(tmp_path / "labelme", {"b.json": _labelme()})
    for folder in (tmp_path / "yolo", tmp_path / "labelme"):
        _put(folder, {"a.png": None, "b.png": None, "c.png": None})
    tree, _ = _import(tmp_path / "yolo", tmp_path / "out.json")
    assert [image["file_name"] for image in tree["images"]] == ["a.png", "b.png", "c.png"]
    assert [entry["image_id"] for entry in tree["annotations"]] == [2]
    expected = "images without an annotation file; images without objects (2): a.png, c.png"
    assert caplog.messages == [expected]
    caplog.clear()
    tree, _ = _import(tmp_path / "labelme", tmp_path / "out.json")
    assert [image["file_name"] for image in tree["images"]] == ["b.png"]
    assert caplog.messages == ["images without an annotation file, left out (2): a.png, c.png"]


def test_stale_names_are_noted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Renamed images are found by the annotation file's own name."""
    _put(tmp_path, {"new.xml": _voc(head="<filename>old.png</filename>"), "new.png": None})
    tree, _ = _import(tmp_path, tmp_path / "out.json")
    assert tree["images"][0]["file_name"] == "new.png"
    assert caplog.messages == [
        "annotation files whose image is elsewhere than stated, found by name (1): "
        "new.xml (says 'old.png', found 'new.png')"
    ]


def test_several_folders_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Merging a training and a test set into one file would be a leak, so a warning names it."""
    _put(tmp_path, {"labels/train/a.txt": BOX, "labels/val/a.txt": BOX, "classes.txt": "cat"})
    _put(tmp_path, {"images/train/a.png": None, "images/val/a.png": None})
    tree, _ = _import(tmp_path, tmp_path / "out.json")
    assert [image["file_name"] for image in tree["images"]] == ["train/a.png", "val/a.png"]
    assert caplog.messages == [
        "files of 2 folders go into one set (train, val); import them one by one for separate sets"
    ]


def test_boxes_end_with_their_images(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """By more than a pixel it is noted; what lies outside, or has no area, is left out."""
    outlines = {
        "rounded": [[50, 30], [60.5, 30], [60.5, 40.5]],
        "cut": [[50, 30], [70, 30], [70, 60]],
        "outside": [[61, 41], [70, 41], [70, 60]],
        "flat": [[10, 10], [20, 10], [30, 10]],
        "thin": [[10.1, 10.1], [10.3, 10.1], [10.3, 10.3]],
    }
    shapes = [{"label": label, "points": points} for label, points in outlines.items()]
    _put(tmp_path, {"a.json": json.dumps({"shapes": shapes}), "a.png": None})
    tree, _ = _import(tmp_path, tmp_path / "out.json")
    names = {entry["id"]: entry["name"] for entry in tree["categories"]}
    found = {names[entry["category_id"]]: entry for entry in tree["annotations"]}
    assert {name: entry["bbox"] for name, entry in found.items()} == {
        "rounded": [50, 30, 10, 10],
        "cut": [50, 30, 10, 10],
        "thin": [10.1, 10.1, 0.2, 0.2],
    }
    assert found["cut"]["segmentation"] == [[50, 30, 70, 30, 70, 60]]
    assert found["thin"]["area"] == pytest.approx(0.04)
    assert sorted(caplog.messages) == [
        "objects that extend beyond their images; their boxes are clipped (1): "
        f"{tmp_path / 'a.json'}: cut",
        "objects without area inside their images, left out (2): "
        f"{tmp_path / 'a.json'}: outside, {tmp_path / 'a.json'}: flat",
    ]


@pytest.mark.parametrize(
    ("points", "expected"),
    [
        ([[-2, 5], [9, 9]], [0, 5, 9, 4]),
        ([[5, -2], [9, 9]], [5, 0, 4, 9]),
        ([[50, 5], [62, 9]], [50, 5, 10, 4]),
        ([[5, 30], [9, 42]], [5, 30, 4, 10]),
    ],
)
def test_every_side_is_cut(
    points: Any, expected: list[float], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Left, top, right and bottom, each with the note."""
    shape = {"label": "cat", "shape_type": "rectangle", "points": points}
    _put(tmp_path, {"a.json": json.dumps({"shapes": [shape]}), "a.png": None})
    tree, _ = _import(tmp_path, tmp_path / "out.json")
    assert [entry["bbox"] for entry in tree["annotations"]] == [expected]
    assert [line.partition(";")[0] for line in caplog.messages] == [
        "objects that extend beyond their images"
    ]


def test_folders_are_found_from_within(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of a folder called `.`, and where a folder further up has the same name."""
    files = {"labels/set/labels/train/a.txt": BOX, "labels/set/images/train/a.png": None}
    _put(tmp_path, {**files, "labels/set/classes.txt": "cat"})
    monkeypatch.chdir(tmp_path / "labels" / "set" / "labels" / "train")
    _, images_dir = _import(Path("."), tmp_path / "out.json")
    assert images_dir == tmp_path / "labels" / "set" / "images" / "train"


def test_classes_number_categories(tmp_path: Path) -> None:
    """Names are sorted, or as a file says: all of it, an earlier import too."""
    first = _put(
        tmp_path / "first",
        {"a.json": _labelme("pig"), "b.json": _labelme("ant"), "a.png": None, "b.png": None},
    )
    second = _put(tmp_path / "second", {"a.json": _labelme("pig"), "a.png": None})
    tree, _ = _import(first, tmp_path / "first.json")
    assert tree["categories"] == [{"id": 1, "name": "ant"}, {"id": 2, "name": "pig"}]
    again, _ = _import(second, tmp_path / "second.json", classes=tmp_path / "first.json")
    assert again["categories"] == tree["categories"]
    assert again["annotations"][0]["category_id"] == 2
    _put(tmp_path, {"names.txt": "pig\ncat\nant\n"})
    tree, _ = _import(first, tmp_path / "first.json", classes=tmp_path / "names.txt")
    assert [entry["name"] for entry in tree["categories"]] == ["pig", "cat", "ant"]
    _put(tmp_path, {"names.txt": "ant\n"})
    with pytest.raises(UserError, match=r"names\.txt' does not list .* objects: 'pig' \(1\)$"):
        _import(first, tmp_path / "first.json", classes=tmp_path / "names.txt")


def test_difficult_is_kept_in_the_file(tmp_path: Path) -> None:
    """The strict reader takes it, and so does training."""
    marked = _voc().replace("</name>", "</name><difficult>1</difficult>")
    _put(tmp_path, {"a.xml": marked, "a.png": None})
    _, images_dir = _import(tmp_path, tmp_path / "out.json")
    found = open_coco(tmp_path / "out.json", images_dir)
    assert found.tree["annotations"][0]["difficult"] == 1
    assert len(training_images(found)) == 1


def test_only_own_files_are_replaced(tmp_path: Path) -> None:
    """An earlier OUT is, and is no annotation of LabelMe's; somebody else's file is not."""
    _put(tmp_path, {"a.json": _labelme(), "a.png": None})
    for _ in range(2):
        _import(tmp_path, tmp_path / "out.json")
    content = (tmp_path / "out.json").read_bytes()
    _put(tmp_path, {"a.json": _labelme("dog")})
    _import(tmp_path, tmp_path / "out.json")
    assert (tmp_path / "out.json").read_bytes() != content
    with pytest.raises(UserError, match=r"'.*a\.json' exists and was not written by this command"):
        _import(tmp_path, tmp_path / "a.json")
    with pytest.raises(UserError, match=r"OUT should end in \.json, found '.*a\.png'"):
        _import(tmp_path, tmp_path / "a.png")
    assert (tmp_path / "a.json").read_text(encoding="utf-8") == _labelme("dog")


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Counts go to standard output; what it wrote is well by data-check."""
    outline = "1 0.1 0.1 0.5 0.1 0.5 0.75"
    _put(tmp_path, {"set/labels/a.txt": f"{BOX}\n{outline}", "set/data.yaml": "names: [cat, käse]"})
    _put(tmp_path, {"set/images/a.png": None, "set/images/b.png": None})
    out = tmp_path / "out.json"
    assert main(["import-annotations", str(tmp_path / "set"), str(out), "--from", "yolo"]) == 0
    images = tmp_path / "set" / "images"
    assert capsys.readouterr().out.splitlines() == [
        f"images       2 in '{images}', 1 without objects",
        "objects      2, 1 with a mask",
        "categories   2: cat, käse",
        f"written      {out}",
    ]
    assert main(["data-check", str(out), "--images", str(images)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "no problems found"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["absent", "out.json"], "'absent' is not a folder of annotation files"),
        (["absent", "out.json", "--from", "cvat"], "invalid choice: 'cvat'"),
        (["absent", "out.txt"], "OUT should end in .json"),
        (["absent"], "required: OUT.json"),
    ],
)
def test_mistakes_are_one_line(
    words: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Exit code 2 and one line that begins with error."""
    monkeypatch.chdir(tmp_path)
    assert main(["import-annotations", *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert message in line
    assert list(tmp_path.iterdir()) == []
