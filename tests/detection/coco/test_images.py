import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from stored_files import REFUSED_FILES, STORED_FILES  # type: ignore[import-not-found]

from detection.coco.images import read_annotated_image, read_image
from rsa_pretrain.data.read_settings import DEFAULT_RULES, ReadRules
from rsa_pretrain.plumbing.errors import UserError

AS_STORED = ReadRules(exif_orientation=False)


def test_photographs_are_read_upright(tmp_path: Path) -> None:
    """An EXIF orientation of 6 turns the picture a quarter clockwise; any mode becomes RGB."""
    picture = Image.new("L", (4, 2), 0)
    picture.putpixel((0, 0), 200)
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "turned.png"
    picture.save(path, exif=exif)
    found = read_image(path, DEFAULT_RULES)
    assert (found.mode, found.size) == ("RGB", (2, 4))
    assert found.getpixel((1, 0)) == (200, 200, 200)
    assert read_annotated_image(path, (4, 2), DEFAULT_RULES).size == (2, 4)
    with pytest.raises(UserError, match="is 2x4, annotated as 4x2"):
        read_annotated_image(path, (2, 4), DEFAULT_RULES)
    assert read_annotated_image(path, (2, 4), AS_STORED).getpixel((0, 0)) == (200, 200, 200)
    with pytest.raises(UserError, match="is 4x2, annotated as 2x4"):
        read_annotated_image(path, (4, 2), AS_STORED)


@pytest.mark.parametrize("kind", STORED_FILES)
def test_every_kind_is_read_by_its_rule(tmp_path: Path, kind: str) -> None:
    """The rules are those of image folders and shards."""
    stored = STORED_FILES[kind]
    (tmp_path / "a.png").write_bytes(stored.content)
    found = np.asarray(read_image(tmp_path / "a.png", DEFAULT_RULES)).astype(int)
    assert np.abs(found - stored.pixels).max() <= stored.tolerance


@pytest.mark.parametrize("kind", REFUSED_FILES)
def test_what_has_no_rule_is_refused(tmp_path: Path, kind: str) -> None:
    """For the same reasons, the limit of pixels among them; the file is named."""
    content, reason = REFUSED_FILES[kind]
    path = tmp_path / "a.tif"
    path.write_bytes(content)
    message = re.escape(f"image '{path}' cannot be decoded: {reason}")
    with pytest.raises(UserError, match=message + "$"):
        read_image(path, DEFAULT_RULES)


@pytest.mark.parametrize("content", [b"", b"text", b"\x89PNG\r\n\x1a\n" + bytes(30)])
def test_what_is_no_image_is_named(tmp_path: Path, content: bytes) -> None:
    """The error has the path and what the decoder says."""
    path = tmp_path / "broken.png"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"image '.*broken\.png' cannot be decoded: "):
        read_image(path, DEFAULT_RULES)


def test_the_limit_of_pixels_is_the_users(tmp_path: Path) -> None:
    """A lower one than the default refuses what that takes."""
    Image.new("L", (400, 400)).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png", DEFAULT_RULES).size == (400, 400)
    with pytest.raises(UserError, match=r"0\.2 megapixels, data\.max_megapixels is 0\.1"):
        read_image(tmp_path / "a.png", ReadRules(max_megapixels=0.1))
