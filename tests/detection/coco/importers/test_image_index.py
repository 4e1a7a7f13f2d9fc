from pathlib import Path

import pytest

from detection.coco.importers.image_index import ImageIndex
from rsa_pretrain.plumbing.errors import UserError


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
    ("path", "expected"),
    [
        ("a.png", "a.png"),
        ("a", "a.png"),
        ("A.PNG", "a.png"),
        ("./a.png", "a.png"),
        ("../a.png", "a.png"),
        ("x/b.jpg", "x/b.jpg"),
        ("x/b", "x/b.jpg"),
        ("x/../a", "a.png"),
        ("C:/Users/bob/a.png", "a.png"),
        ("/home/bob/x/b.jpg", "x/b.jpg"),
        ("/home/bob/y/b.jpg", None),
        ("c.jpg", "c.jpg"),
        ("x/c.jpg", "x/c.jpg"),
        ("z/c.jpg", "c.jpg"),
        ("b.jpg", None),
        ("a.jpg", None),
        ("c.tar", None),
        ("", None),
    ],
)
def test_images_are_found(path: str, expected: str | None, tmp_path: Path) -> None:
    """By the longest end of a path, with or without suffix, in capital letters or small ones."""
    index = _index(tmp_path, "a.png", "c.jpg", "x/b.jpg", "x/c.jpg")
    assert index.find(path) == expected


def test_of_several_the_exact_one_is_taken(tmp_path: Path) -> None:
    """A suffix or capital letters decide; where nothing does, all are named."""
    index = _index(tmp_path, "a.png", "a.jpg", "B.png", "b.png", "x/C.png", "x/c.PNG")
    assert index.find("a.jpg") == "a.jpg"
    assert index.find("b") == "b.png"
    assert index.find("B") == "B.png"
    assert index.find("y/b") == "b.png"
    with pytest.raises(UserError, match=r"'a' matches several images .*: a\.jpg, a\.png; keep"):
        index.find("a")
    with pytest.raises(UserError, match=r"'x/c\.png' matches several .*: x/C\.png, x/c\.PNG;"):
        index.find("x/c.png")


def test_folders_without_images_are_refused(tmp_path: Path) -> None:
    """Both errors say what to set."""
    with pytest.raises(UserError, match=r"no folder of images '.*no'; name it with --images"):
        ImageIndex(tmp_path / "no")
    with pytest.raises(UserError, match=r"no image below '.*'; name their folder with --images"):
        _index(tmp_path, "a.txt")
