"""Index the images of local tar shards by their headers, and read them in any order."""

import os
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from rsa_pretrain.data.image_sources import read_encoded
from rsa_pretrain.data.read_settings import ReadRules
from rsa_pretrain.data.shards.labels import Label
from rsa_pretrain.data.shards.samples import SampleReader
from rsa_pretrain.data.shards.settings import SampleRules
from rsa_pretrain.data.shards.tar_files import compression_of, named_shard, open_plain
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.regular_files import open_regular

# Number of cached indices: opening the test split needs the classes of the training split.
_MOST_KEPT = 4096


class ShardIndex(NamedTuple):
    """The images of a shard.

    Attributes:
        places: Their offsets and lengths in the shard, in bytes, int64 (N, 2).
        labels: Their classes, as stated.
    """

    places: npt.NDArray[np.int64]
    labels: tuple[Label, ...]


class TarImages:
    """The images of local shards, as the sources of an image set.

    Args:
        shards: Uncompressed tar files.
        indices: The images of each.
        rules: How to read them.
    """

    def __init__(self, shards: list[Path], indices: list[ShardIndex], rules: ReadRules) -> None:
        self.shards = shards
        self.rules = rules
        self._starts = np.cumsum([0, *(len(index.places) for index in indices)])
        self._places = np.concatenate([index.places for index in indices])

    def __len__(self) -> int:
        return len(self._places)

    def read(self, index: int) -> tuple[Image.Image, str]:
        """Decode one member."""
        return read_encoded(self, index).read()

    def content(self, index: int) -> bytes:
        """Read one member."""
        offset, size = self._places[index].tolist()
        with open_regular(self.shard(index)) as file:
            file.seek(offset)
            return file.read(size)

    def where(self, index: int) -> str:
        """Name the shard and the image's number in it."""
        shard = self._shard_number(index)
        return f"{self.shards[shard]}, image {index - self._starts[shard]}"

    def identity(self, index: int) -> bytes:
        """Return the shard's name and the image's place in it."""
        offset, size = self._places[index].tolist()
        return os.fsencode(f"{self.shard(index).name} {offset} {size}\n")

    def key(self, index: int) -> str:
        """Return the shard's name and the image's number in it."""
        return f"{self.shard(index).name} {index - self._starts[self._shard_number(index)]}"

    def shard(self, index: int) -> Path:
        """Return the shard that contains an image."""
        return self.shards[self._shard_number(index)]

    def _shard_number(self, index: int) -> int:
        return int(np.searchsorted(self._starts, index, side="right")) - 1


def index_shard(path: Path, rules: SampleRules) -> ShardIndex:
    """Find the images of a local shard from its headers.

    Raises:
        UserError: If it is compressed or damaged, or a sample is malformed.
    """
    stat = path.stat()
    return _index(path, rules, stat.st_mtime_ns, stat.st_size)


@lru_cache(_MOST_KEPT)
def _index(path: Path, rules: SampleRules, mtime_ns: int, size: int) -> ShardIndex:
    """Index a file with this modification time and size."""
    places, labels = [], []
    with named_shard(str(path)):
        _refuse_compressed(path)
        with open_plain(path) as tar:
            for _, image, label in SampleReader(str(path), tar, rules, with_images=False):
                places.append((image.info.offset_data, image.info.size))
                labels.append(label)
    return ShardIndex(np.array(places, np.int64).reshape(-1, 2), tuple(labels))


def _refuse_compressed(path: Path) -> None:
    compression = compression_of(path)
    if compression is not None:
        raise UserError(
            f"shard '{path}' is compressed with {compression.name}: pretraining streams it, an "
            "evaluation reads images in any order, which only a plain tar allows; unpack it with "
            f"`{compression.command} '{path.name}' > NAME.tar`"
        )
