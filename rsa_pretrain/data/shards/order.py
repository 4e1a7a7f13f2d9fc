"""Compute which images of which shards a loader process reads in an epoch."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Piece:
    """Consecutive images of one shard, from ``first`` up to but excluding ``stop``."""

    shard: int
    first: int
    stop: int


@dataclass(frozen=True)
class ShardOrder:
    """The division of a set of shards among the streams of all ranks.

    In each epoch the shards are permuted and their images concatenated. Each rank owns
    ``batches_per_epoch`` batches of that sequence, and within them each of its streams a contiguous
    range. Stream ``s`` yields the batches b with ``b mod num_streams == s``, which is the order in
    which a loader asks its processes in turn. The end of the sequence, beyond the batches of all
    ranks, is left out in this epoch.

    Attributes:
        sizes: Images per shard.
        seed: Seed of the permutations.
        batch_size: Images per batch and rank.
        batches_per_epoch: Batches of a rank in an epoch.
        world_size: Number of ranks.
        num_streams: Loader processes per rank, at least 1.

    Raises:
        ValueError: If the batches of an epoch need more images than there are.
    """

    sizes: tuple[int, ...]
    seed: int
    batch_size: int
    batches_per_epoch: int
    world_size: int
    num_streams: int

    def __post_init__(self) -> None:
        needed = self.world_size * self.batches_per_epoch * self.batch_size
        if not 0 < needed <= sum(self.sizes):
            raise ValueError(f"an epoch of {needed} images from {sum(self.sizes)}")

    def batches(self, epoch: int, stream: int) -> range:
        """Return the numbers, counted over the whole run, of a stream's batches in an epoch."""
        start = epoch * self.batches_per_epoch
        first = start + (stream - start) % self.num_streams
        return range(first, start + self.batches_per_epoch, self.num_streams)

    def pieces(self, epoch: int, rank: int, stream: int) -> list[Piece]:
        """Return the pieces a stream reads in an epoch, in order."""
        before = sum(len(self.batches(epoch, earlier)) for earlier in range(stream))
        start = (rank * self.batches_per_epoch + before) * self.batch_size
        stop = start + len(self.batches(epoch, stream)) * self.batch_size
        pieces = []
        shard_start = 0
        for shard in np.random.default_rng([self.seed, epoch]).permutation(len(self.sizes)):
            first = max(start - shard_start, 0)
            last = min(stop - shard_start, self.sizes[shard])
            if first < last:
                pieces.append(Piece(int(shard), first, last))
            shard_start += self.sizes[shard]
        return pieces
