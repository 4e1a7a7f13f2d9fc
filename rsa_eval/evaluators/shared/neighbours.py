"""Find the nearest rows of a feature bank by cosine similarity, within a memory budget."""

from collections.abc import Iterator
from typing import NamedTuple, Self

import torch
from torch import Tensor
from torch.nn import functional

from rsa_eval.evaluators.shared.memory_plan import ChunkPlan
from rsa_eval.evaluators.shared.selection import few, largest, reads_are_free
from rsa_eval.features.share import Share
from rsa_pretrain.plumbing.distributed import gather, sum_over_ranks
from rsa_pretrain.plumbing.errors import UserError

_COUNTED_AT_ONCE = 8192


class Neighbours(NamedTuple):
    """The nearest rows of a bank for each query."""

    similarities: Tensor
    """Cosines, float32 (N, k)."""
    indices: Tensor
    """Rows of the bank, int64 (N, k)."""

    @classmethod
    def none_yet(cls, num_queries: int, device: torch.device) -> Self:
        """Return empty lists."""
        return cls(
            torch.empty(num_queries, 0, device=device),
            torch.empty(num_queries, 0, dtype=torch.int64, device=device),
        )

    def nearest_first(self) -> "Neighbours":
        """Sort by similarity; ties keep the bank's order."""
        similarities, order = self.similarities.sort(dim=1, descending=True, stable=True)
        return Neighbours(similarities, self.indices.gather(1, order))


class RowNorms:
    """Computes the norms of feature rows, and remembers whether all were finite.

    The answer stays on the device until the end, as reading it makes the CPU wait for a GPU.

    Args:
        device: The rows' device.
    """

    def __init__(self, device: torch.device) -> None:
        self._num_broken = torch.zeros((), dtype=torch.int64, device=device)

    def __call__(self, rows: Tensor) -> Tensor:
        """Return the norms of float32 rows, (N,), none smaller than 1e-12."""
        norms: Tensor = torch.linalg.vector_norm(rows, dim=1)
        self._num_broken += (~norms.isfinite()).sum()
        return norms.clamp_min_(1e-12)

    def all_finite(self, share: Share) -> bool:
        """Return whether every norm so far was finite, in all processes."""
        if share.count > 1:
            sum_over_ranks(self._num_broken)
        return not int(self._num_broken)


def unit_rows(features: Tensor, norms: RowNorms, device: torch.device) -> Tensor:
    """Return a float32 copy of features, each row divided by its norm."""
    rows = features.to(device, torch.float32, copy=True)
    return rows.div_(norms(rows)[:, None])


def nearest_rows(
    bank: Tensor,
    queries: Tensor | None,
    k: int,
    plan: ChunkPlan,
    device: torch.device,
    share: Share,
) -> Iterator[tuple[slice, Neighbours]]:
    """Find the k nearest rows of a bank for each query, a chunk of queries at a time.

    If the features are on a GPU, the CPU never waits for it before the end.

    Args:
        bank: Features, (M, D), of any float type; may be mapped from a file.
        queries: Features, (N, D); None searches, for each row of the bank, all others.
        k: At most M, or M - 1 without queries.
        plan: Sizes of the chunks.
        device: Where the comparison runs.
        share: The part of the bank this process compares; all processes find the same.

    Yields:
        The rows of a chunk of queries, and their neighbours in the whole bank, nearest first.

    Raises:
        UserError: At the end, if a feature is not finite.
    """
    asked = bank if queries is None else queries
    norms = RowNorms(device)
    for start in range(0, len(asked), plan.num_queries):
        chunk = slice(start, start + plan.num_queries)
        own_row = start if queries is None else None
        unit = unit_rows(asked[chunk], norms, device)
        yield chunk, search(unit, bank, k, plan.num_rows, share, own_row, norms).nearest_first()
    if not norms.all_finite(share):
        every = (bank,) if queries is None else (bank, queries)
        num_broken = sum(map(_num_broken, every))
        raise UserError(
            f"nearest neighbours need finite features; {num_broken} of {sum(map(len, every))} "
            "images have features that are NaN, infinite or too large; extract them at precision "
            "fp32"
        )


def _num_broken(features: Tensor) -> int:
    parts = torch.split(features, _COUNTED_AT_ONCE)
    norms = (torch.linalg.vector_norm(part.float(), dim=1) for part in parts)
    return sum(int((~found.isfinite()).sum()) for found in norms)


def search(
    queries: Tensor,
    bank: Tensor,
    k: int,
    rows_at_once: int,
    share: Share,
    own_row: int | None,
    norms: RowNorms,
) -> Neighbours:
    """Find the k nearest rows of the bank, each process searching its share of the rows.

    Ties go to the row that comes first in the bank, whatever the chunks and the number of
    processes.

    Args:
        queries: Unit rows, (N, D), the same in all processes.
        bank: Features, (M, D), of any float type; converted a chunk at a time.
        k: At most M, or M - 1 with ``own_row``.
        rows_at_once: Rows of the bank in a chunk.
        share: This process's part of the bank.
        own_row: Bank row of the first query, if the queries are consecutive rows of the bank; no
            query then finds itself. None if they are not in the bank.
        norms: Computes the norms of the bank's rows.

    Returns:
        The neighbours in the whole bank, in bank order; the same in all processes.
    """

    def similarities(chunk: Tensor, start: int) -> Tensor:
        rows = chunk.to(queries.device, torch.float32)
        # Dividing the products by the norms avoids a copy of the rows.
        cosines = (queries @ rows.T).div_(norms(rows))
        if own_row is not None:
            cosines.diagonal(own_row - start).fill_(-torch.inf)
        return cosines

    found = Neighbours.none_yet(len(queries), queries.device)
    rows = share.rows(len(bank))
    for start in range(rows.start, rows.stop, rows_at_once):
        chunk = bank[start : min(start + rows_at_once, rows.stop)]
        # The similarities stay unnamed: a name would keep two chunks in memory at once.
        found = with_chunk(found, similarities(chunk, start), start, k)
    return found if share.count == 1 else _over_all(found, share.count, k)


def with_chunk(found: Neighbours, similarities: Tensor, start: int, k: int) -> Neighbours:
    """Merge in the rows of the next chunk that are nearer than the farthest of k found so far.

    After the first chunks these are few, so that only they are selected from, not the whole chunk,
    where counting them is cheap.

    Args:
        found: The k nearest of the rows before ``start``, or all of them if there are fewer; in
            bank order.
        similarities: Similarities to the rows from ``start`` on, (N, m).
        start: Bank row of the first column.
        k: Neighbours wanted.
    """
    nearer = None
    if found.indices.shape[1] == k and reads_are_free(similarities.device):
        nearer = few(similarities > found.similarities.amin(dim=1, keepdim=True), k)
    if nearer is None:
        columns = largest(similarities, min(k, similarities.shape[1]))
        values = similarities.gather(1, columns)
    else:
        columns, is_one = nearer
        values = similarities.gather(1, columns).masked_fill_(~is_one, -torch.inf)
    values = torch.cat([found.similarities, values], dim=1)
    indices = torch.cat([found.indices, columns + start], dim=1)
    return best(values, indices, k)


def best(similarities: Tensor, indices: Tensor, k: int) -> Neighbours:
    """Keep the k nearest of neighbours in bank order, or all if there are fewer."""
    if similarities.shape[1] <= k:
        return Neighbours(similarities, indices)
    chosen = largest(similarities, k)
    return Neighbours(similarities.gather(1, chosen), indices.gather(1, chosen))


def _over_all(found: Neighbours, count: int, k: int) -> Neighbours:
    """Merge the lists of all processes; a share below k is padded with -inf."""
    num_queries, width = found.indices.shape
    free = (0, k - width)
    parts = (
        functional.pad(found.similarities, free, value=-torch.inf),
        functional.pad(found.indices, free),
    )
    similarities, indices = (
        gather(part).view(count, num_queries, k).transpose(0, 1).reshape(num_queries, count * k)
        for part in parts
    )
    return best(similarities, indices, k)
