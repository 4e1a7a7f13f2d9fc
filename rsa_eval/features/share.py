"""Divide an evaluation's work among processes."""

from dataclasses import dataclass

from rsa_pretrain.plumbing.distributed import rank, world_size


@dataclass(frozen=True)
class Share:
    """The part of process ``rank`` of ``count``."""

    rank: int
    count: int

    def batches(self, num_items: int, batch_size: int) -> list[range]:
        """Return every ``count``-th batch: the same batches whatever the number of processes."""
        starts = range(0, num_items, batch_size)
        return self.of([range(start, min(start + batch_size, num_items)) for start in starts])

    def of(self, batches: list[range]) -> list[range]:
        """Return every ``count``-th of some batches."""
        return batches[self.rank :: self.count]

    def rows(self, num_rows: int) -> range:
        """Return the ``rank``-th of ``count`` contiguous parts, equal in size up to one row."""
        return range(num_rows * self.rank // self.count, num_rows * (self.rank + 1) // self.count)


ALONE = Share(0, 1)


def own_share() -> Share:
    """Return this process's part in its process group."""
    return Share(rank(), world_size())
