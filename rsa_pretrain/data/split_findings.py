"""Count the contents of a data set's split, image by image."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from PIL import Image

from rsa_pretrain.data.image_set import UNLABELLED
from rsa_pretrain.data.shards.labels import Label
from rsa_pretrain.plumbing.errors import UserError


class DecodedImage(NamedTuple):
    """One decoded image: its class, its size in pixels and its stored mode, or why it is broken."""

    label: Label
    width: int
    height: int
    mode: str
    error: str | None
    where: str = ""
    """Name of the image."""
    digest: bytes = b""
    """Hash of its pixels."""


@dataclass
class SplitFindings:
    """The findings for a split.

    Attributes:
        split: Its name.
        class_sizes: Images by class name, classes without images included.
        unlabelled: Images without a class.
        widths: Number of intact images by width, in pixels.
        heights: The same for the heights.
        modes: The same for the stored modes.
        broken: For each broken image, its name and the reason.
        published: Published numbers of the split, in words; empty if none are published.
        problems: Problems found, one sentence each.
        notes: Notes for the user, one sentence each.
        digests: Location of the image with each pixel hash, in a set that is not published.
        shard_sizes: Images by shard, in a webdataset; only shards read to their end.
    """

    split: str
    class_sizes: dict[str, int] = field(default_factory=dict)
    unlabelled: int = 0
    widths: Counter[int] = field(default_factory=Counter)
    heights: Counter[int] = field(default_factory=Counter)
    modes: Counter[str] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)
    published: str = ""
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    shard_sizes: dict[str, int] = field(default_factory=dict)
    digests: dict[bytes, str] = field(default_factory=dict)

    @property
    def num_images(self) -> int:
        """Number of all images, broken ones included."""
        return self.unlabelled + sum(self.class_sizes.values())

    def to_tree(self) -> dict[str, Any]:
        """Return everything as plain JSON-compatible values."""
        tree = {"num_images": self.num_images, **vars(self)}
        del tree["digests"]
        return tree

    def count(self, images: Iterable[DecodedImage], class_names: Mapping[Label, str]) -> None:
        """Add images to the counts.

        Args:
            images: Findings for each image.
            class_names: Name of each class, by the label the images state.
        """
        for image in images:
            if image.label == UNLABELLED:
                self.unlabelled += 1
            else:
                self.class_sizes[class_names[image.label]] += 1
            if image.error is None:
                self.widths[image.width] += 1
                self.heights[image.height] += 1
                self.modes[image.mode] += 1
                if not self.published:
                    self.digests[image.digest] = image.where
            else:
                self.broken.append(image.error)


def decode_image(
    label: Label, where: str, read: Callable[[], tuple[Image.Image, str]]
) -> DecodedImage:
    """Decode an image and return the properties to count.

    Args:
        label: Its class.
        where: Name of the image.
        read: Returns it and the name of the mode in which it is stored, or raises ``UserError``.
    """
    try:
        image, mode = read()
    except UserError as error:
        return DecodedImage(label, 0, 0, "", str(error).partition("; ")[0])
    digest = hashlib.blake2b(image.tobytes(), digest_size=16).digest()
    return DecodedImage(label, image.width, image.height, mode, None, where, digest)
