from pathlib import Path

import pytest
from PIL import Image

from detection.images import read_annotated_image, read_image
from rsa_pretrain.errors import UserError


def test_photographs_are_read_upright(tmp_path: Path) -> None:
    """An EXIF orientation of 6 turns the picture a quarter clockwise; any mode becomes RGB."""
    picture = Image.new("L", (4, 2), 0)
    picture.putpixel((0, 0), 200)
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.save(tmp_path / "turned.png", exif=exif)
    found = read_image(tmp_path / "turned.png")
    assert (found.mode, found.size) == ("RGB", (2, 4))
    assert found.getpixel((1, 0)) == (200, 200, 200)
    assert read_annotated_image(tmp_path / "turned.png", (4, 2)).size == (2, 4)
    with pytest.raises(UserError, match="is 2x4, annotated as 4x2"):
        read_annotated_image(tmp_path / "turned.png", (2, 4))


@pytest.mark.parametrize("content", [b"", b"text", b"\x89PNG\r\n\x1a\n" + bytes(30)])
def test_what_is_no_image_is_named(tmp_path: Path, content: bytes) -> None:
    """The error has the path and what the decoder says."""
    path = tmp_path / "broken.png"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"image '.*broken\.png' cannot be decoded: "):
        read_image(path)


def test_images_of_absurd_size_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow's guard against decompression bombs is one error line, too."""
    Image.new("L", (40, 40)).save(tmp_path / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(UserError, match="cannot be decoded: Image size"):
        read_image(tmp_path / "bomb.png")
