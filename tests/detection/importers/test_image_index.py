from pathlib import Path

import pytest

from detection.importers.image_index import ImageIndex
from rsa_pretrain.errors import UserError


def _index(folder: Path, *names: str) -> ImageIndex:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return ImageIndex(folder)


def test_images_alone_count(tmp_path: Path) -> None:
    """Other files, hidden ones and systems' do not; the order is that of the paths' parts."""
    names = ["b/a.JPG", "a.png", "a.json", ".b.png", "__MACOSX/c.png", "Thumbs.db", "b.tiff"]
    assert _index(tmp_path, *names).names == ["a.png", "b/a.JPG", "b.tiff"]


@pytest.mark.parametrize(
    ("wanted", "folder", "expected"),
    [
        ("a.png", "", "a.png"),
        ("a", "", "a.png"),
        ("A.PNG", "", "a.png"),
        ("x/b.jpg", "", "x/b.jpg"),
        ("b.jpg", "x", "x/b.jpg"),
        ("b", "x", "x/b.jpg"),
        ("x\\b.jpg", "", "x/b.jpg"),
        ("../x/b.jpg", "y", "x/b.jpg"),
        ("./a.png", "", "a.png"),
        ("C:\\Users\\bob\\a.png", "", "a.png"),
        ("/home/bob/b.jpg", "x", "x/b.jpg"),
        ("a.png", "x", "a.png"),
        ("deep.jpg", "", "x/y/deep.jpg"),
        ("deep", "", "x/y/deep.jpg"),
        ("deep.jpg", "z", None),
        ("c.jpg", "", "c.jpg"),
        ("c.jpg", "x", "x/c.jpg"),
        ("../a.png", "", "a.png"),
        ("c.tar", "", None),
        ("", "", None),
    ],
)
def test_images_are_found(wanted: str, folder: str, expected: str | None, tmp_path: Path) -> None:
    """By path from the annotation's folder or the root, with or without suffix, by name alone."""
    index = _index(tmp_path, "a.png", "c.jpg", "x/b.jpg", "x/c.jpg", "x/y/deep.jpg")
    assert index.find(wanted, folder) == expected


def test_of_several_the_exact_one_is_taken(tmp_path: Path) -> None:
    """A suffix or capital letters decide; where nothing does, all are named."""
    index = _index(tmp_path, "a.png", "a.jpg", "B.png", "b.png", "x/d.png", "y/d.png")
    assert index.find("a.jpg", "") == "a.jpg"
    assert index.find("b", "") == "b.png"
    with pytest.raises(UserError, match=r"'a' stands for several images .*: a\.jpg, a\.png; keep"):
        index.find("a", "")
    with pytest.raises(UserError, match=r"'d' stands for several images .*: x/d\.png, y/d\.png"):
        index.find("d", "")


def test_folders_without_images_are_refused(tmp_path: Path) -> None:
    """Both errors say what to set."""
    with pytest.raises(UserError, match=r"no folder of images '.*no'; name it with --images"):
        ImageIndex(tmp_path / "no")
    with pytest.raises(UserError, match=r"no image below '.*'; name their folder with --images"):
        _index(tmp_path, "a.txt")
