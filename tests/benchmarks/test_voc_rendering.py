"""Test that a COCO-format set is rendered in PASCAL VOC's format."""

import json
import re
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
import yaml
from PIL import Image

from benchmarks.voc_rendering import main, render_voc, voc_box
from detection.coco.sets import open_coco
from rsa_pretrain.plumbing.errors import UserError


@pytest.fixture
def annotations(tmp_path: Path) -> Path:
    """A JPEG with an object and a crowd, and a PNG without objects."""
    (tmp_path / "images").mkdir()
    Image.new("RGB", (30, 20)).save(tmp_path / "images" / "b.jpg")
    Image.new("RGBA", (30, 20)).save(tmp_path / "images" / "a.png")
    tree = {
        "images": [
            {"id": number, "file_name": name, "height": 20, "width": 30}
            for number, name in ((4, "b.jpg"), (2, "a.png"))
        ],
        "annotations": [
            {"id": 1, "image_id": 4, "category_id": 9, "bbox": [2.4, 3.0, 9.3, 6.0]},
            {
                "id": 2,
                "image_id": 4,
                "category_id": 3,
                "bbox": [0, 0, 30, 20],
                "area": 9.0,
                "iscrowd": 1,
                "segmentation": {"size": [20, 30], "counts": [600]},
            },
        ],
        "categories": [{"id": 9, "name": "cat"}, {"id": 3, "name": "dog"}],
    }
    path = tmp_path / "a.json"
    path.write_text(json.dumps(tree), encoding="utf-8")
    return path


def test_a_set_is_rendered(
    annotations: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Lists by id, whole pixels from 1, crowds difficult, JPEGs linked and other images encoded."""
    kit = tmp_path / "kit"
    words = [str(annotations), str(tmp_path / "images"), str(kit), "--set", "2012/val"]
    assert main(words) == 0
    assert capsys.readouterr().out == f"2 images in {kit}\n"
    folder = kit / "VOC2012"
    assert (folder / "ImageSets/Main/val.txt").read_text() == "a\nb\n"
    assert (folder / "JPEGImages/b.jpg").samefile(tmp_path / "images/b.jpg")
    with Image.open(folder / "JPEGImages/a.jpg") as image:
        assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (30, 20))
    root = ET.parse(folder / "Annotations/b.xml").getroot()
    found = [
        [entry.findtext("name"), entry.findtext("difficult"), *(side.text for side in box)]
        for entry in root.findall("object")
        for box in entry.findall("bndbox")
    ]
    assert found == [["cat", "0", "3", "4", "12", "9"], ["dog", "1", "1", "1", "30", "20"]]
    assert ET.parse(folder / "Annotations/a.xml").getroot().findall("object") == []
    assert yaml.safe_load((kit / "classes.yaml").read_text()) == {
        "data": {"classes": ["dog", "cat"]}
    }
    assert main(words) == 0  # once more, over the same files


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ([0.4, 0.4, 0.2, 0.2], [1, 1, 1, 1]),
        ([29.6, 19.6, 0.4, 0.4], [30, 20, 30, 20]),
        ([-5.0, 2.0, 10.0, 40.0], [1, 3, 5, 20]),
    ],
)
def test_boxes_have_a_pixel_inside(box: list[float], expected: list[int]) -> None:
    """Also those that round to none."""
    assert voc_box({"bbox": box}, 20, 30) == expected


def test_mistakes_are_one_line(
    annotations: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Names that differ by their suffix alone, and files that are not there."""
    Image.new("RGB", (30, 20)).save(tmp_path / "images" / "b.png")
    text = annotations.read_text(encoding="utf-8").replace("a.png", "b.png")
    annotations.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match="share names, which VOC's cannot"):
        render_voc(open_coco(annotations, tmp_path / "images"), tmp_path / "kit")
    assert main([str(tmp_path / "none.json"), str(tmp_path), str(tmp_path / "kit")]) == 2
    assert capsys.readouterr().err.startswith("error: cannot read annotations")


def test_a_source_that_is_the_target_stays(
    annotations: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Images that lie where the rendered ones go are kept, byte for byte; a link, too."""
    folder = tmp_path / "kit/VOC2007/JPEGImages"
    folder.parent.mkdir(parents=True)
    (tmp_path / "images").rename(folder)
    content = (folder / "b.jpg").read_bytes()
    for images in (folder, tmp_path / "link"):
        (tmp_path / "link").unlink(missing_ok=True)
        (tmp_path / "link").symlink_to(folder)
        assert main([str(annotations), str(images), str(tmp_path / "kit")]) == 0
        assert (folder / "b.jpg").read_bytes() == content
        assert (folder / "a.png").is_file()
        assert sorted(path.name for path in folder.iterdir()) == ["a.jpg", "a.png", "b.jpg"]


@pytest.mark.parametrize("name", ["trainval", "2007/a/b", "../../escaped/x", "2007/.."])
def test_a_name_that_is_no_set_is_refused(
    name: str, annotations: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As in a config; nothing is written."""
    words = [str(annotations), str(tmp_path / "images"), str(tmp_path / "kit"), "--set", name]
    assert main(words) == 2
    assert re.match(
        r"error: --set .*expected sets such as 2007/trainval .*\n$", capsys.readouterr().err
    )
    assert not (tmp_path / "kit").exists()


def test_what_is_in_the_way_stays(
    annotations: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file in place of the folder, the classes of other sets, and an image that is damaged."""
    words = [str(annotations), str(tmp_path / "images"), str(tmp_path / "kit")]
    (tmp_path / "kit").write_text("mine", encoding="utf-8")
    assert main(words) == 2
    assert (
        capsys.readouterr().err
        == f"error: '{words[2]}' is a file where a folder is to be; choose another place\n"
    )
    (tmp_path / "kit").unlink()
    (tmp_path / "images" / "a.png").write_bytes(b"damaged")
    assert main(words) == 2
    assert re.match(r"error: image '.*a\.png' cannot be decoded", capsys.readouterr().err)
    classes = tmp_path / "kit" / "classes.yaml"
    classes.write_text("data: {classes: [cow]}\n", encoding="utf-8")
    assert main(words) == 2
    assert capsys.readouterr().err.startswith(f"error: '{classes}' names other classes; render")
    assert classes.read_text(encoding="utf-8") == "data: {classes: [cow]}\n"
