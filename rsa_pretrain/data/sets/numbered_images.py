"""Name the images that published files hold one after another."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


class NumberedImages:
    """The names of the images of some files, in sequence; subclasses read the pixels.

    Args:
        paths: File of each part.
        sizes: Number of images of each part, in the same order.
    """

    def __init__(self, paths: Mapping[str, Path], sizes: Mapping[str, int]) -> None:
        self.paths = paths
        self.sizes = sizes

    def __len__(self) -> int:
        return sum(self.sizes.values())

    def where(self, index: int) -> str:
        """Name the file and the image's number in it."""
        part, number = self.locate(index)
        return f"{self.paths[part]}, image {number}"

    def identity(self, index: int) -> bytes:
        """Return the part and the image's number: the files are published ones."""
        return f"{self.key(index)}\n".encode()

    def key(self, index: int) -> str:
        """Return the part and the image's number in it."""
        part, number = self.locate(index)
        return f"{part} {number}"

    def locate(self, index: int) -> tuple[str, int]:
        """Return the part and the number in it of an image of the sequence."""
        for part, size in self.sizes.items():
            if index < size:
                return part, index
            index -= size
        raise IndexError(index)
