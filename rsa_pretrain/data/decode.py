"""Decode image files as RGB: by Pillow, or as uint8 tensors by torchvision's JPEG decoder."""

import io
import logging
import math
import struct
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg
from torchvision.transforms.v2.functional import pil_to_tensor

from rsa_pretrain.data.orientation import exchanges_sides, orientation_of, turn_image, turn_pixels
from rsa_pretrain.data.read_settings import DEFAULT_RULES, ReadRules
from rsa_pretrain.data.stored_modes import TURNED, stored_mode, to_rgb, with_part
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.regular_files import open_regular

_log = logging.getLogger(__name__)

# What Pillow's decoders raise on damaged or hostile files, and the rules on files they forbid.
DECODE_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    RuntimeError,
    struct.error,
)

_TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

# ``ReadRules.max_megapixels`` replaces Pillow's own limit, which applies to all files of a process
# alike, and the warning at half of it, which does not name the file.
Image.MAX_IMAGE_PIXELS = None

_opened = threading.local()


@contextmanager
def named_damage(where: str, remedy: str) -> Iterator[None]:
    """Turn a decoding error raised in the block into a user error.

    Args:
        where: Name of the image.
        remedy: What to do about it.

    Raises:
        UserError: Instead of one of ``DECODE_ERRORS``; a user error passes as it is.
    """
    try:
        yield
    except UserError:
        raise
    except DECODE_ERRORS as error:
        raise UserError(f"cannot decode {where} ({why_broken(error)}); {remedy}") from None


def why_broken(error: BaseException) -> str:
    """Say in a few words why decoding failed, without the file's name."""
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return reason.partition("\n")[0]


@contextmanager
def opened(file: IO[bytes], where: str, rules: ReadRules) -> Iterator[Image.Image]:
    """Open an image that is not too large; Pillow's warnings in the block name it.

    Args:
        file: Its content.
        where: Name of the image.
        rules: How to read it.

    Raises:
        One of ``DECODE_ERRORS``, also in the block.
    """
    _opened.where = where
    try:
        with _recognised(file) as image:
            megapixels = image.width * image.height / 1e6
            if megapixels > rules.max_megapixels:
                raise ValueError(
                    f"{math.ceil(megapixels * 10) / 10:g} megapixels, data.max_megapixels is "
                    f"{rules.max_megapixels:g}"
                )
            yield image
    finally:
        _opened.where = None


def read_rgb(image: Image.Image, rules: ReadRules) -> tuple[Image.Image, str]:
    """Return an opened image as RGB, and the name of the mode in which it is stored.

    Raises:
        One of ``DECODE_ERRORS``.
    """
    mode = stored_mode(image)
    pixels = to_rgb(image)
    orientation = _orientation(image, rules)
    if orientation != 1:
        return turn_image(pixels, orientation), with_part(mode, TURNED)
    return pixels, mode


def fault_of(path: str, rules: ReadRules) -> str | None:
    """Return why a file is not a readable image; None if it is one.

    A JPEG is read to its end but reconstructed at an eighth of its size.
    """
    try:
        with open_regular(Path(path)) as file, opened(file, f"'{path}'", rules) as image:
            image.draft("RGB", (1, 1))
            to_rgb(image)
    except DECODE_ERRORS as error:
        return why_broken(error)
    return None


class EncodedImage(NamedTuple):
    """The bytes of an image file.

    Attributes:
        content: The complete file.
        where: Name of the image, in errors.
        remedy: What to do if it is broken, in errors.
        rules: How to read it.
    """

    content: bytes
    where: str
    remedy: str
    rules: ReadRules = DEFAULT_RULES

    def read(self) -> tuple[Image.Image, str]:
        """Return the image as RGB, and the name of the mode in which it is stored.

        Raises:
            UserError: If it cannot be decoded.
        """
        with self._open() as image:
            return read_rgb(image, self.rules)

    def size(self) -> tuple[int, int]:
        """Return height and width in pixels, from the header alone if possible.

        Raises:
            UserError: If there is no image header.
        """
        with self._open() as image:
            # Pillow rotates a TIFF when loading it; a PNG's orientation may follow its pixels.
            if image.format == "TIFF" or (image.format == "PNG" and b"eXIf" in self.content):
                image.load()
            if exchanges_sides(_orientation(image, self.rules)):
                return image.width, image.height
            return image.height, image.width

    def orientation(self) -> int:
        """Return the EXIF orientation that ``read`` turns it by, 1 to 8.

        Raises:
            UserError: If there is no image header.
        """
        with self._open() as image:
            # A PNG's may follow its pixels; Pillow drops a TIFF's when loading it.
            if image.format == "PNG" and b"eXIf" in self.content:
                image.load()
            return _orientation(image, self.rules)

    def pixels(self) -> Tensor:
        """Return the image as RGB, uint8 (3, H, W); the same pixels as ``read``.

        Raises:
            UserError: If it cannot be decoded.
        """
        with self._open() as image:
            # Both decoders use libjpeg; for these two modes they also convert colours alike.
            if image.format == "JPEG" and image.mode in ("RGB", "L"):
                encoded = torch.frombuffer(bytearray(self.content), dtype=torch.uint8)
                try:
                    pixels: Tensor = decode_jpeg(encoded, ImageReadMode.RGB)
                    return turn_pixels(pixels, _orientation(image, self.rules))
                except RuntimeError:
                    pass  # Pillow reads more, and says what is wrong with the rest.
            pixels = pil_to_tensor(read_rgb(image, self.rules)[0])
            return pixels

    @contextmanager
    def _open(self) -> Iterator[Image.Image]:
        file = io.BytesIO(self.content)
        with (
            named_damage(self.where, self.remedy),
            opened(file, self.where, self.rules) as image,
        ):
            yield image


def _recognised(file: IO[bytes]) -> Image.Image:
    try:
        return Image.open(file)
    except UnidentifiedImageError:
        file.seek(0)
        if file.read(4) in _TIFF_STARTS:
            reason = (
                "a TIFF layout that Pillow does not read, expected grey, or RGB of 8 or 16 bits"
            )
        else:
            reason = "no image format is recognised"
    raise ValueError(reason)


def _orientation(image: Image.Image, rules: ReadRules) -> int:
    """Return how to rotate an image; a TIFF's own tag is part of the format."""
    obeyed = rules.exif_orientation or image.format == "TIFF"
    return orientation_of(image) if obeyed else 1


def _warn_by_name(show: Any) -> Any:
    """Wrap ``warnings.showwarning`` so that a warning in ``opened`` is logged with its file."""

    def show_by_name(
        message: Warning | str, category: type[Warning], *arguments: Any, **options: Any
    ) -> None:
        where = getattr(_opened, "where", None)
        if where is None or issubclass(category, DeprecationWarning):
            show(message, category, *arguments, **options)
        else:
            _log.warning("%s is read although Pillow warns: %s", where, message)

    return show_by_name


# In force wherever images are decoded, loader processes and threads included, which
# ``warnings.catch_warnings`` would disturb.
warnings.showwarning = _warn_by_name(warnings.showwarning)
