"""Images in tar shards: which members make a sample, and reading local shards in any order.

A sample is a run of members whose names agree up to the first dot of the file name, its key, as the
webdataset library has it: ``KEY.jpg`` (or jpeg, png, webp) and, if it has a class, ``KEY.cls``,
which holds the class index as text. Other members of the key are ignored.
"""

import os
import re
import tarfile
from collections.abc import Collection, Iterator
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from rsa_pretrain.errors import UserError
from rsa_pretrain.image_set import UNLABELLED, read_encoded
from rsa_pretrain.read_rules import ReadRules

_IMAGE_SUFFIXES = frozenset({"jpg", "jpeg", "png", "webp"})
LABEL_SUFFIX = "cls"
# A damaged label must not make room for classes by the billion.
_MOST_LABEL_DIGITS = 6

# Members of this form describe the shard; the library skips them.
_META_NAME = re.compile(r"__[^/]*__($|/)")


class TarImage(NamedTuple):
    """Where an image lies in its shard, in bytes, and its class index."""

    offset: int
    size: int
    label: int


class TarImages:
    """The images of local shards, as the sources of an image set.

    Args:
        shards: Uncompressed tar files.
        indices: The images of each.
        rules: How they are read.
    """

    def __init__(self, shards: list[Path], indices: list[list[TarImage]], rules: ReadRules) -> None:
        self.shards = shards
        self.rules = rules
        self._starts = np.cumsum([0, *map(len, indices)])
        places = [(image.offset, image.size) for index in indices for image in index]
        self._places = np.array(places, np.int64).reshape(-1, 2)

    def __len__(self) -> int:
        return len(self._places)

    def read(self, index: int) -> tuple[Image.Image, str]:
        """Decode one member."""
        return read_encoded(self, index).read()

    def content(self, index: int) -> bytes:
        """Read one member."""
        offset, size = self._places[index].tolist()
        with self._shard(index).open("rb") as file:
            file.seek(offset)
            return file.read(size)

    def where(self, index: int) -> str:
        """Name the shard and the image's number in it."""
        shard = self._shard_number(index)
        return f"{self.shards[shard]}, image {index - self._starts[shard]}"

    def identity(self, index: int) -> bytes:
        """Return the shard's name and the image's place in it."""
        offset, size = self._places[index].tolist()
        return os.fsencode(f"{self._shard(index).name} {offset} {size}\n")

    def _shard(self, index: int) -> Path:
        return self.shards[self._shard_number(index)]

    def _shard_number(self, index: int) -> int:
        return int(np.searchsorted(self._starts, index, side="right")) - 1


def index_shard(path: Path) -> list[TarImage]:
    """Find the images of a local shard from its headers.

    Raises:
        UserError: If it is no whole uncompressed tar file, or a sample is not as described above.
    """
    try:
        with tarfile.open(path, "r:") as tar:
            return list(_find_images(path, tar))
    except (tarfile.TarError, EOFError) as error:
        raise UserError(
            f"shard '{path}' is no whole uncompressed tar file ({error}); copy or unpack it again"
        ) from None


def image_suffix(shard: str, key: str, suffixes: Collection[str]) -> str:
    """Return which of a sample's members is its image.

    Raises:
        UserError: If none or several are.
    """
    images = sorted(_IMAGE_SUFFIXES & set(suffixes))
    if len(images) != 1:
        raise UserError(
            f"sample '{key}' of shard '{shard}' should have one image (KEY.jpg, .jpeg, .png or "
            f".webp, where KEY has no dot), found {', '.join(f'.{name}' for name in suffixes)}"
        )
    return images[0]


def parse_label(shard: str, key: str, content: bytes | None) -> int:
    """Return the class index that a ``.cls`` member holds, ``UNLABELLED`` if there is none.

    Raises:
        UserError: If it holds anything else.
    """
    if content is None:
        return UNLABELLED
    text = content.decode("ascii", errors="replace").strip()
    if not text.isdecimal() or len(text) > _MOST_LABEL_DIGITS:
        raise UserError(
            f"'{key}.cls' of shard '{shard}' should hold a class index from 0 to "
            f"{10**_MOST_LABEL_DIGITS - 1}, found '{text[:20]}'"
        )
    return int(text)


def _find_images(path: Path, tar: tarfile.TarFile) -> Iterator[TarImage]:
    named = ((_split_name(member.name), member) for member in tar if member.isreg())
    samples = groupby(
        ((parts, member) for parts, member in named if parts), lambda pair: pair[0][0]
    )
    for key, run in samples:
        sample: dict[str, tarfile.TarInfo] = {}
        for (_, suffix), member in run:
            if suffix in sample:
                raise UserError(f"shard '{path}' holds '{key}.{suffix}' twice")
            sample[suffix] = member
        image = sample[image_suffix(str(path), key, sample)]
        label = tar.extractfile(sample[LABEL_SUFFIX]) if LABEL_SUFFIX in sample else None
        content = None if label is None else label.read()
        yield TarImage(image.offset_data, image.size, parse_label(str(path), key, content))


def _split_name(name: str) -> tuple[str, str] | None:
    folder, slash, file = name.rpartition("/")
    stem, dot, suffix = file.partition(".")
    if not stem or not dot or _META_NAME.match(name):
        return None
    return folder + slash + stem, suffix.lower()
