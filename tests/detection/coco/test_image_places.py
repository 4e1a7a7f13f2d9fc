import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from detection.__main__ import main
from detection.coco.image_places import where_images_are
from detection.coco.sets import open_coco
from rsa_pretrain.plumbing.errors import UserError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two images in set/train, as an annotation file's folder is laid out."""
    (tmp_path / "set" / "train").mkdir(parents=True)
    for number in (1, 2):
        Image.new("RGB", (20, 10)).save(tmp_path / "set" / "train" / f"{number}.png")
    return tmp_path


def _write(root: Path, prefix: str) -> Path:
    tree: dict[str, Any] = {
        "images": [
            {"id": number, "file_name": f"{prefix}{number}.png", "height": 10, "width": 20}
            for number in (1, 2)
        ],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "bbox": [2, 2, 4, 4], "iscrowd": 0}
        ],
        "categories": [{"id": 1, "name": "a"}],
    }
    path = root / "set.json"
    path.write_text(json.dumps(tree), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("prefix", "folder", "expected"),
    [
        (
            "train/",
            "set/train",
            "2 of them are found like '{0}/set/train/1.png': set K to '{0}/set'",
        ),
        ("set/train/", "set/train", "found like '{0}/set/train/1.png': set K to '{0}'"),
        ("train\\", "set/train", "found like '{0}/set/train/1.png': set K to '{0}/set'"),
        ("/train/", "set/train", "found like '{0}/set/train/1.png': set K to '{0}/set'"),
        ("", "set", "found like '{0}/set/train/1.png': set K to '{0}/set/train'"),
        ("train/", "set/absent", "found like '{0}/set/train/1.png': set K to '{0}/set'"),
        (
            "images/x/",
            "set/train",
            "2 of them are in it under the last part of their names: if these are the same images, "
            "write file_name relative to the folder, '1.png' in place of 'images/x/1.png'",
        ),
        ("C:\\Users\\bob\\", "set/train", "'1.png' in place of 'C:\\Users\\bob\\1.png'"),
        ("/home/bob/data/", "set/train", "'1.png' in place of '/home/bob/data/1.png'"),
    ],
)
def test_error_says_what_to_set(root: Path, prefix: str, folder: str, expected: str) -> None:
    """Images nearby, or under other names, are found, and the error names the fix."""
    with pytest.raises(UserError, match=r"^2 of 2 images of ") as caught:
        open_coco(_write(root, prefix), root / folder, images_key="K")
    assert expected.format(root) in str(caught.value)


def test_names_of_another_case_are_found(root: Path) -> None:
    """A case-sensitive file system has 1.png where an export says 1.PNG."""
    hint = where_images_are(["1.PNG"], root / "set" / "train", "K")
    assert "'1.png' in place of '1.PNG'" in hint


def test_nothing_is_said_of_images_that_are_nowhere(root: Path) -> None:
    """There is nothing to set."""
    assert where_images_are(["9.png", "x/8.png"], root / "set", "K") == ""


def test_following_the_advice_works(root: Path) -> None:
    """With the folder that was named the same file opens."""
    path = _write(root, "set\\train\\")
    coco = open_coco(path, root)
    assert [image["file_name"] for image in coco.images] == ["set/train/1.png", "set/train/2.png"]


def test_data_check_names_the_remedy_once(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All missing images are one line, which says what to set; exit code 1."""
    path = _write(root, "train/")
    assert main(["data-check", str(path), "--images", str(root / "set" / "train")]) == 1
    lines = capsys.readouterr().out.splitlines()
    (line,) = [line for line in lines if line.startswith("  error: ")]
    assert f"set data.train_images to '{root}/set' (2): train/1.png, train/2.png" in line
    assert lines[-1] == "problems found: 1"
