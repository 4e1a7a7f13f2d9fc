"""Find the nearest rows of a feature bank by cosine similarity, within a memory budget."""

import math
from dataclasses import dataclass
from typing import NamedTuple, Self

import torch
from torch import Tensor
from torch.nn import functional

from rsa_eval.features.share import Share
from rsa_pretrain.plumbing.distributed import gather
from rsa_pretrain.plumbing.errors import UserError

_MIB = 2**20
_MOST_SIMILARITIES = 2**31 - 1


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


@dataclass(frozen=True)
class ChunkPlan:
    """Number of queries and of bank rows compared at a time."""

    num_queries: int
    num_rows: int


def plan_chunks(
    budget_mib: int, num_queries: int, width: int, k: int, num_classes: int
) -> ChunkPlan:
    """Choose the largest chunks that fit a budget, in MiB, with a quarter of it for the queries.

    The budget covers the float32 copies of both sides, their similarities with a mask, the
    neighbour lists during merging, and the class scores. A chunk has fewer than 2**31
    similarities, the limit of some CUDA kernels.
    """
    budget = budget_mib * _MIB
    query_bytes = 4 * width + 80 * k + 20 * num_classes
    most_queries = max(1, budget // 4 // query_bytes)
    queries = math.ceil(num_queries / math.ceil(num_queries / most_queries))
    rows = (budget - queries * query_bytes) // (4 * width + 5 * queries)
    return ChunkPlan(queries, max(1, min(rows, _MOST_SIMILARITIES // queries)))


def unit_rows(features: Tensor, device: torch.device) -> Tensor:
    """Return a float32 copy of features, each row divided by its norm.

    Raises:
        UserError: If a row or its norm is not finite.
    """
    rows = features.to(device, torch.float32, copy=True)
    return rows.div_(_norms(rows)[:, None])


def _norms(rows: Tensor) -> Tensor:
    norms: Tensor = torch.linalg.vector_norm(rows, dim=1)
    num_broken = len(norms) - int(norms.isfinite().sum())
    if num_broken:
        raise UserError(
            f"nearest neighbours need finite features; {num_broken} of {len(norms)} images have "
            "features that are NaN, infinite or too large; extract them at precision fp32"
        )
    norms.clamp_min_(1e-12)
    return norms


def search(
    queries: Tensor, bank: Tensor, k: int, rows_at_once: int, share: Share, own_row: int | None
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

    Returns:
        The neighbours in the whole bank, in bank order; the same in all processes.

    Raises:
        UserError: As ``unit_rows``.
    """
    found = Neighbours.none_yet(len(queries), queries.device)
    rows = share.rows(len(bank))
    for start in range(rows.start, rows.stop, rows_at_once):
        chunk = bank[start : min(start + rows_at_once, rows.stop)]
        # The similarities stay unnamed: a name would keep two chunks in memory at once.
        found = with_chunk(found, _similarities(queries, chunk, start, own_row), start, k)
    return found if share.count == 1 else _over_all(found, share.count, k)


def _similarities(queries: Tensor, chunk: Tensor, start: int, own_row: int | None) -> Tensor:
    rows = chunk.to(queries.device, torch.float32)
    # Dividing the products by the norms avoids a copy of the rows.
    similarities = (queries @ rows.T).div_(_norms(rows))
    if own_row is not None:
        similarities.diagonal(own_row - start).fill_(-torch.inf)
    return similarities


def with_chunk(found: Neighbours, similarities: Tensor, start: int, k: int) -> Neighbours:
    """Merge in the rows of the next chunk that are nearer than the farthest of k found so far.

    After the first chunks these are few, so that only they are selected from, not the whole chunk.

    Args:
        found: The k nearest of the rows before ``start``, or all of them if there are fewer; in
            bank order.
        similarities: Similarities to the rows from ``start`` on, (N, m).
        start: Bank row of the first column.
        k: Neighbours wanted.
    """
    nearer = None
    if found.indices.shape[1] == k:
        nearer = _few(similarities > found.similarities.amin(dim=1, keepdim=True), k)
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


def largest(values: Tensor, k: int) -> Tensor:
    """Return the columns of the k largest values of each row, in ascending order.

    Ties go to the first columns; ``topk`` alone breaks ties arbitrarily.

    Args:
        values: (N, m).
        k: At most m.

    Returns:
        int64 (N, k).
    """
    width = min(k + 1, values.shape[1])
    top, columns = values.topk(width, dim=1)
    if width > k:  # columns that topk did not choose may tie for the last place
        contested = (top[:, k - 1] == top[:, k]).nonzero().squeeze(1)
        columns = columns[:, :k]
        # Sorting takes some 24 bytes per value; a 24th of the rows at a time bounds the memory.
        for rows in torch.split(contested, math.ceil(len(values) / 24)):
            order = values[rows].sort(dim=1, descending=True, stable=True).indices
            columns[rows] = order[:, :k]
    return columns.sort(dim=1).values


def _few(marks: Tensor, most: int) -> tuple[Tensor, Tensor] | None:
    """Return the columns of each row's marks, if no row has more than ``most``.

    Args:
        marks: bool (N, m).
        most: Limit per row; also bounds the memory.

    Returns:
        Columns in ascending order, (N, largest number of marks in a row), and a mask of the real
        marks; the rest pads the shorter rows.
    """
    if int(marks.count_nonzero()) > most * len(marks):
        return None
    rows, marked = marks.nonzero(as_tuple=True)
    counts = rows.bincount(minlength=len(marks))
    width = int(counts.max())
    if width > most:
        return None
    is_one = torch.arange(width, device=marks.device) < counts[:, None]
    columns = marked.new_zeros(is_one.shape)
    columns[is_one] = marked  # both go row by row
    return columns, is_one


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
