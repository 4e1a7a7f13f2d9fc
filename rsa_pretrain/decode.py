"""Stored images decoded as RGB: by Pillow, or as uint8 tensors by torchvision's JPEG decoder."""

import io
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg
from torchvision.transforms.v2.functional import pil_to_tensor

from rsa_pretrain.errors import UserError

# What Pillow's decoders raise on damaged or hostile files.
DECODE_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    struct.error,
    Image.DecompressionBombError,
)


@contextmanager
def named_damage(where: str, remedy: str) -> Iterator[None]:
    """Turn what decoding raises in the block into a user error.

    Args:
        where: Which image it is.
        remedy: What to do about it.

    Raises:
        UserError: In place of one of ``DECODE_ERRORS``.
    """
    try:
        yield
    except DECODE_ERRORS as error:
        raise UserError(f"cannot decode {where} ({_why_broken(error)}); {remedy}") from None


class EncodedImage(NamedTuple):
    """The bytes of an image file.

    EXIF orientation is not applied, as in torchvision.

    Attributes:
        content: The whole file.
        where: Which image it is, in errors.
        remedy: What to do if it is broken, in errors.
    """

    content: bytes
    where: str
    remedy: str

    def read(self) -> tuple[Image.Image, str]:
        """Return the image as RGB, and the mode in which it is stored.

        Raises:
            UserError: If it cannot be decoded.
        """
        with named_damage(self.where, self.remedy), self._open() as image:
            return image.convert("RGB"), image.mode

    def size(self) -> tuple[int, int]:
        """Return height and width in pixels, from the header alone.

        Raises:
            UserError: If there is no image header.
        """
        with named_damage(self.where, self.remedy), self._open() as image:
            return image.height, image.width

    def pixels(self) -> Tensor:
        """Return the image as RGB, uint8 (3, H, W); the same pixels as ``read``.

        Raises:
            UserError: If it cannot be decoded.
        """
        with named_damage(self.where, self.remedy), self._open() as image:
            # Both decoders are libjpeg's; of these two modes they also convert colours alike.
            if image.format == "JPEG" and image.mode in ("RGB", "L"):
                encoded = torch.frombuffer(bytearray(self.content), dtype=torch.uint8)
                try:
                    pixels: Tensor = decode_jpeg(encoded, ImageReadMode.RGB)
                    return pixels
                except RuntimeError:
                    pass  # Pillow reads more, and says what is wrong with the rest.
            pixels = pil_to_tensor(image.convert("RGB"))
            return pixels

    def _open(self) -> Image.Image:
        return Image.open(io.BytesIO(self.content))


def _why_broken(error: BaseException) -> str:
    """Say in a few words why decoding failed, without the file's name."""
    if isinstance(error, UnidentifiedImageError):
        return "no image format is recognised"
    return getattr(error, "strerror", None) or str(error)
