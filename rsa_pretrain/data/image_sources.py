"""Provide the images of a set from encoded files, or from pixels in memory."""

from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
from PIL import Image

from rsa_pretrain.data.decode import EncodedImage, named_damage
from rsa_pretrain.data.read_settings import ReadRules

BROKEN_REMEDY = (
    "replace it or, in an imagefolder, remove it (rsa-pretrain data-check names all such files; "
    "an imagefolder of class folders skips them with data.on_broken=skip)"
)
"""Advice about a broken image, where nothing else is known."""


class Sources(Protocol):
    """The source of a set's images; cheap to copy into loader processes."""

    def __len__(self) -> int: ...

    def read(self, index: int) -> tuple[Image.Image, str]:
        """Return an image as RGB, and the name of the mode in which it is stored.

        Raises:
            UserError: If it cannot be decoded.
        """

    def where(self, index: int) -> str:
        """Return a readable name of an image."""

    def identity(self, index: int) -> bytes:
        """Return the bytes that identify an image in the fingerprint of its set."""

    def key(self, index: int) -> str:
        """Return a unique name of an image, the same wherever the set is stored."""


@runtime_checkable
class FileSources(Sources, Protocol):
    """Images that are encoded files, read by ``rules``."""

    rules: ReadRules

    def content(self, index: int) -> bytes:
        """Return the complete file."""


@runtime_checkable
class PixelSources(Sources, Protocol):
    """Images of one size, few and small enough to be kept in memory."""

    def array(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        """Return the RGB pixels of some images, uint8 (N, H, W, 3).

        Raises:
            UserError: If one cannot be decoded.
        """

    def array_bytes(self, rows: npt.NDArray[np.int64]) -> int:
        """Return the memory that ``array`` takes for these images."""


def read_encoded(sources: FileSources, index: int, remedy: str = BROKEN_REMEDY) -> EncodedImage:
    """Read an image's file.

    Args:
        sources: The files.
        index: Number of the image.
        remedy: What to do if it is broken, for errors.

    Raises:
        UserError: If it cannot be read.
    """
    where = f"'{sources.where(index)}'"
    with named_damage(where, remedy):
        return EncodedImage(sources.content(index), where, remedy, sources.rules)


def rules_identity(rules: ReadRules) -> bytes:
    """Return the rules' part of the fingerprint of a set of image files.

    Empty for images read as stored, as all were before there was a choice. The pixel limit does
    not count: it decides which images there are, not what they look like.
    """
    return b"upright by EXIF\n" if rules.exif_orientation else b""


class PixelArray:
    """Images in memory.

    Args:
        pixels: RGB, uint8 (N, H, W, 3).
        name: Data set's name.
        prefix: Start of the images' keys, which separates those of one split from another's.
    """

    def __init__(self, pixels: npt.NDArray[np.uint8], name: str, prefix: str = "") -> None:
        self.pixels = pixels
        self.name = name
        self.prefix = prefix

    def __len__(self) -> int:
        return len(self.pixels)

    def read(self, index: int) -> tuple[Image.Image, str]:
        """Wrap the pixels."""
        return Image.fromarray(self.pixels[index]), "RGB"

    def array(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        """Return the pixels of some images; all of them in order are not copied."""
        return self.pixels[rows] if self.array_bytes(rows) else self.pixels

    def array_bytes(self, rows: npt.NDArray[np.int64]) -> int:
        """Return the size of a copy; 0 for all of them in order."""
        if np.array_equal(rows, np.arange(len(self))):
            return 0
        return len(rows) * self.pixels[:1].nbytes

    def where(self, index: int) -> str:
        """Name an image by its number."""
        return f"{self.name} {self.prefix}image {index}"

    def identity(self, index: int) -> bytes:
        """Return the pixels."""
        return bytes(self.pixels[index].tobytes())

    def key(self, index: int) -> str:
        """Return the image's number, after the prefix."""
        return f"{self.prefix}{index}"
