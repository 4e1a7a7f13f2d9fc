import io

import numpy as np
import pytest
import torch
from PIL import Image

from rsa_pretrain import decode
from rsa_pretrain.decode import EncodedImage
from rsa_pretrain.errors import UserError


def photo(mode="RGB", size=(61, 47)):
    """A smooth picture with noise, width x height."""
    across = np.linspace(0, 200, size[0])[None, :, None]
    noise = np.random.default_rng(0).integers(0, 50, (size[1], size[0], 3))
    return Image.fromarray((across + noise).astype(np.uint8)).convert(mode)


def encoded(image, form="JPEG", **options):
    """An image as a file."""
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return EncodedImage(buffer.getvalue(), "'a.jpg'", "remove it")


def turned():
    """EXIF data that ask for a rotation by a right angle."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


@pytest.mark.parametrize(
    ("image", "form", "options"),
    [
        (photo(), "JPEG", {"quality": 75}),
        (photo(), "JPEG", {"quality": 95, "subsampling": 0, "progressive": True}),
        (photo(), "JPEG", {"exif": turned()}),
        (photo("L"), "JPEG", {}),
        (photo("CMYK"), "JPEG", {}),
        (photo(), "PNG", {}),
        (photo("RGBA"), "PNG", {}),
        (photo("P"), "PNG", {}),
        (photo(), "WEBP", {}),
    ],
)
def test_tensors_hold_pillows_pixels(image, form, options):
    """Bitwise, of every mode and format, and EXIF rotation is left alone."""
    file = encoded(image, form, **options)
    pixels = file.pixels()
    expected = np.asarray(file.read()[0])
    assert pixels.dtype == torch.uint8
    assert file.size() == (47, 61) == pixels.shape[1:]
    assert np.array_equal(pixels.permute(1, 2, 0).numpy(), expected)


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_usual_jpegs_are_decoded_by_torchvision(mode, monkeypatch):
    """Pillow reads no more than the header of a colour or grayscale JPEG."""
    monkeypatch.setattr(decode, "pil_to_tensor", None)
    assert encoded(photo(mode)).pixels().shape == (3, 47, 61)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "no image format is recognised"),
        (b"not a jpeg", "no image format is recognised"),
        (encoded(photo()).content[:900], "truncated"),
        (encoded(photo(), "PNG").content[:900], "truncated"),
    ],
)
def test_damage_is_named_alike(content, reason):
    """A tensor is refused for the reason, and in the words, that an image is refused in."""
    file = EncodedImage(content, "'a.jpg'", "remove it")
    with pytest.raises(UserError, match=rf"^cannot decode 'a\.jpg' \(.*{reason}.*\); remove it$"):
        file.read()
    with pytest.raises(UserError, match=rf"^cannot decode 'a\.jpg' \(.*{reason}.*\); remove it$"):
        file.pixels()


def test_a_bomb_is_refused(monkeypatch):
    """Pillow's limit of pixels holds for torchvision's decoder too."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(UserError, match="exceeds limit"):
        encoded(photo()).pixels()
