"""Stream tar shards: each image once an epoch, over all ranks and loader processes."""

import hashlib
import os
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from contextlib import contextmanager
from itertools import accumulate, islice
from pathlib import Path
from tarfile import TarFile
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, default_collate, get_worker_info

from rsa_pretrain.data.decode import EncodedImage
from rsa_pretrain.data.draws import draws_of
from rsa_pretrain.data.image_set import UNLABELLED
from rsa_pretrain.data.image_sources import rules_identity
from rsa_pretrain.data.loader import make_batch_loader
from rsa_pretrain.data.read_settings import DEFAULT_RULES, ReadRules
from rsa_pretrain.data.shards.labels import Label
from rsa_pretrain.data.shards.order import Piece, ShardOrder
from rsa_pretrain.data.shards.samples import SampleReader
from rsa_pretrain.data.shards.settings import DEFAULT_SAMPLES, SampleRules
from rsa_pretrain.data.shards.tar_files import named_shard, open_stream
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.extras import import_extra
from rsa_pretrain.plumbing.regular_files import check_regular

Item = TypeVar("Item")

# Makes a batch from images, given the (epoch, number in the set) of each.
MakeBatch = Callable[[Sequence[tuple[int, int]], Sequence[EncodedImage]], Any]

_REMEDY = "write the shard again without it (rsa-pretrain data-check names all such images)"


class ShardSet:
    """A set of shards that can only be read as a stream.

    Args:
        urls: Local paths, URLs, or ``pipe:`` and a shell command that writes a tar.
        names: Names of the shards, independent of their location.
        sizes: Images in each.
        shuffle_buffer: Number of images from which a loader process draws the next one.
        rules: How to read images.
        samples: What makes a sample.
    """

    name = "webdataset"
    labels = None

    def __init__(
        self,
        urls: Sequence[str],
        names: Sequence[str],
        sizes: Sequence[int],
        shuffle_buffer: int,
        rules: ReadRules = DEFAULT_RULES,
        samples: SampleRules = DEFAULT_SAMPLES,
    ) -> None:
        self.urls = tuple(urls)
        self.names = tuple(names)
        self.sizes = tuple(sizes)
        self.shuffle_buffer = shuffle_buffer
        self.rules = rules
        self.samples = samples
        self.class_names: list[str] = []

    def __len__(self) -> int:
        return sum(self.sizes)

    def fingerprint(self) -> str:
        """Return a SHA-256 of the shards' names and sizes, and of the rules that choose images."""
        lines = (f"{name} {size}\n" for name, size in zip(self.names, self.sizes, strict=True))
        # Only explicit choices count, so that shards without any keep their old fingerprint.
        choices = (
            f"{name} {getattr(self.samples, name)}\n"
            for name in ("image_suffix", "dotted_keys")
            if getattr(self.samples, name) != getattr(DEFAULT_SAMPLES, name)
        )
        digest = hashlib.sha256(f"{self.name}\n{''.join(lines)}{''.join(choices)}".encode())
        digest.update(rules_identity(self.rules))
        return digest.hexdigest()


class ShardImage(NamedTuple):
    """One sample, not yet decoded, and its class as stated."""

    encoded: EncodedImage
    label: Label


def read_shard(
    url: str,
    rules: ReadRules = DEFAULT_RULES,
    samples: SampleRules = DEFAULT_SAMPLES,
    left_out: MutableMapping[str, list[str]] | None = None,
) -> Iterator[ShardImage]:
    """Yield the samples of a shard in their order, read as a stream.

    The webdataset library opens it; what makes a sample is the same as for an index.

    Args:
        url: Local path, URL, or ``pipe:`` and a shell command that writes a tar.
        rules: How to read its images.
        samples: What makes a sample.
        left_out: Receives the members that are passed over, by kind.

    Raises:
        UserError: If the library is missing, or the shard cannot be read to its end.
    """
    with opened_shard(url) as tar:
        reader = SampleReader(url, tar, samples, with_images=True)
        for key, image, label in reader:
            encoded = EncodedImage(image.content, f"'{key}' of shard '{url}'", _REMEDY, rules)
            yield ShardImage(encoded, label)
        if left_out is not None:
            left_out.update(reader.left_out)


@contextmanager
def opened_shard(url: str) -> Iterator[TarFile]:
    """Open a shard for reading once, as a stream.

    Raises:
        UserError: If the library is missing, or the shard cannot be read.
    """
    gopen = import_extra("webdataset", "data set 'webdataset'").gopen
    with named_shard(url):
        if os.path.lexists(url):
            check_regular(Path(url))
        with open_stream(url, gopen) as tar:
            yield tar


def shard_loader(
    shards: ShardSet,
    make_batch: MakeBatch,
    *,
    seed: int,
    batch_size: int,
    batches: range,
    batches_per_epoch: int,
    rank: int,
    world_size: int,
    num_workers: int,
    device: torch.device,
) -> "DataLoader[tuple[Any, Tensor]]":
    """Build the loader of one rank: pairs of batches and labels, int64 (N,).

    An image whose class is not a number has the label ``UNLABELLED``. In an epoch no image appears
    twice over all ranks; all do but the incomplete rest, fewer than one batch of all ranks. With
    the same numbers of ranks and processes a batch is the same wherever the range starts; with
    others only the set of an epoch's images is, as long as ``world_size * batch_size`` is the same.

    Ten parameters: each is a number of the run that the loader cannot derive from another.

    Args:
        shards: The set.
        make_batch: Decodes images and makes a batch from them.
        seed: Seed of the order.
        batch_size: Images per batch of this rank.
        batches: This rank's batches to load, counted from 0 over the whole run; batch ``b``
            belongs to epoch ``b // batches_per_epoch``.
        batches_per_epoch: Batches of a rank in an epoch.
        rank: Number of this process, below ``world_size``.
        world_size: Number of processes that share the epoch.
        num_workers: Loader processes (0 loads in the main process).
        device: Device the batches are sent to.
    """
    num_streams = max(1, num_workers)
    order = ShardOrder(shards.sizes, seed, batch_size, batches_per_epoch, world_size, num_streams)
    dataset = _ShardBatches(shards, make_batch, order, rank, batches)
    return make_batch_loader(dataset, None, num_workers, device)


class TransformedBatch:
    """A ``MakeBatch``: each image under a random transform, collated.

    Args:
        transform: RGB image to what a batch collates; draws from torch's generator, and its draws
            depend only on (seed, epoch, image).
        seed: Seed of the draws.
    """

    def __init__(self, transform: Callable[[Image.Image], Any], seed: int) -> None:
        self.transform = transform
        self.seed = seed

    def __call__(self, keys: Sequence[tuple[int, int]], images: Sequence[EncodedImage]) -> Any:
        """Make a batch."""
        transformed = []
        for (epoch, number), image in zip(keys, images, strict=True):
            decoded, _ = image.read()
            with draws_of(self.seed, epoch, number):
                transformed.append(self.transform(decoded))
        return default_collate(transformed)


class _ShardBatches(IterableDataset[tuple[Any, Tensor]]):
    """The batches of the current loader process; see ``shard_loader``."""

    def __init__(
        self,
        shards: ShardSet,
        make_batch: MakeBatch,
        order: ShardOrder,
        rank: int,
        batches: range,
    ) -> None:
        self.shards = shards
        self.make_batch = make_batch
        self.order = order
        self.rank = rank
        self.batches = batches
        self.starts = [0, *accumulate(shards.sizes)]

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[tuple[Any, Tensor]]:
        worker = get_worker_info()
        # The loader asks its processes in turn, the first one for the first batch of the range.
        first = self.batches.start + (0 if worker is None else worker.id)
        stream = first % self.order.num_streams
        per_epoch = self.order.batches_per_epoch
        for epoch in range(self.batches.start // per_epoch, -(-self.batches.stop // per_epoch)):
            own = self.order.batches(epoch, stream)
            wanted = [batch for batch in own if batch in self.batches]
            if wanted:
                skipped = own.index(wanted[0]) * self.order.batch_size
                images = islice(self._shuffled(epoch, stream), skipped, None)
                for _ in wanted:
                    yield self._batch(epoch, list(islice(images, self.order.batch_size)))

    def _batch(self, epoch: int, images: list[tuple[int, ShardImage]]) -> tuple[Any, Tensor]:
        keys = [(epoch, number) for number, _ in images]
        batch = self.make_batch(keys, [image.encoded for _, image in images])
        # Class names are numbered only over all shards of a split.
        labels = [UNLABELLED if isinstance(i.label, str) else i.label for _, i in images]
        return batch, torch.tensor(labels)

    def _shuffled(self, epoch: int, stream: int) -> Iterator[tuple[int, ShardImage]]:
        generator = np.random.default_rng([self.order.seed, epoch, self.rank, stream])
        pieces = self.order.pieces(epoch, self.rank, stream)
        images = (image for piece in pieces for image in self._read(piece))
        return _shuffle(images, self.shards.shuffle_buffer, generator)

    def _read(self, piece: Piece) -> Iterator[tuple[int, ShardImage]]:
        """Yield a piece's images with their numbers in the set."""
        stated, url = self.shards.sizes[piece.shard], self.shards.urls[piece.shard]
        found = 0
        for image in read_shard(url, self.shards.rules, self.shards.samples):
            found += 1
            if found > piece.stop:
                break
            if found > piece.first:
                yield self.starts[piece.shard] + found - 1, image
        if found < piece.stop or found > stated:
            raise UserError(
                f"shard '{url}' has {'more' if found > stated else found} images, its stated "
                f"size is {stated}; correct the file of sizes (data.shard_sizes or sizes.json)"
            )


def _shuffle(
    items: Iterator[Item], buffer_size: int, generator: np.random.Generator
) -> Iterator[Item]:
    """Yield the items, each drawn from a buffer that later items refill."""
    buffer = list(islice(items, buffer_size))
    for item in items:
        chosen = int(generator.integers(len(buffer)))
        yield buffer[chosen]
        buffer[chosen] = item
    for chosen in generator.permutation(len(buffer)).tolist():
        yield buffer[chosen]
