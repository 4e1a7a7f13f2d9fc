"""The nearest rows of a feature bank by cosine similarity, within a stated memory."""

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
        """Sort by similarity; of equal ones, the first in the bank comes first."""
        similarities, order = self.similarities.sort(dim=1, descending=True, stable=True)
        return Neighbours(similarities, self.indices.gather(1, order))


@dataclass(frozen=True)
class ChunkPlan:
    """How many queries meet how many rows of the bank at a time."""

    num_queries: int
    num_rows: int


def plan_chunks(
    budget_mib: int, num_queries: int, width: int, k: int, num_classes: int
) -> ChunkPlan:
    """Choose the largest chunks that fit a budget, in MiB, with a quarter of it for the queries.

    Counted are the float32 copies of both sides, their similarities with a mark for each, the
    lists of neighbours while they are merged, and the scores by class. A chunk has fewer than 2**31
    similarities, the most that some of CUDA's kernels can count.
    """
    budget = budget_mib * _MIB
    query_bytes = 4 * width + 80 * k + 20 * num_classes
    most_queries = max(1, budget // 4 // query_bytes)
    queries = math.ceil(num_queries / math.ceil(num_queries / most_queries))
    rows = (budget - queries * query_bytes) // (4 * width + 5 * queries)
    return ChunkPlan(queries, max(1, min(rows, _MOST_SIMILARITIES // queries)))


def unit_rows(features: Tensor, device: torch.device) -> Tensor:
    """Return a copy of some features in float32, each row divided by its norm.

    Raises:
        UserError: If a row is not finite, or so large that its norm is not.
    """
    rows = features.to(device, torch.float32, copy=True)
    return rows.div_(_norms(rows)[:, None])


def _norms(rows: Tensor) -> Tensor:
    norms: Tensor = torch.linalg.vector_norm(rows, dim=1)
    num_broken = len(norms) - int(norms.isfinite().sum())
    if num_broken:
        raise UserError(
            f"nearest neighbours need finite features; {num_broken} of {len(norms)} images have "
            "features that are NaN, infinite or too large"
        )
    norms.clamp_min_(1e-12)
    return norms


def search(
    queries: Tensor, bank: Tensor, k: int, rows_at_once: int, share: Share, own_row: int | None
) -> Neighbours:
    """Find the k nearest rows of the bank, each process in its share of the rows.

    Of equal similarities the row that stands first in the bank is the nearer, whatever the chunks
    and the number of processes.

    Args:
        queries: Unit rows, (N, D), the same in all processes.
        bank: Features, (M, D), of any float type; converted a chunk at a time.
        k: At most M, or M - 1 with ``own_row``.
        rows_at_once: Rows of the bank in a chunk.
        share: This process's part of the bank.
        own_row: The row of the bank that is the first query, the others following it; no query
            finds itself. None if they do not stand in the bank.

    Returns:
        The neighbours in the whole bank, in its order; the same in all processes.

    Raises:
        UserError: As ``unit_rows``.
    """
    found = Neighbours.none_yet(len(queries), queries.device)
    rows = share.rows(len(bank))
    for start in range(rows.start, rows.stop, rows_at_once):
        chunk = bank[start : min(start + rows_at_once, rows.stop)]
        # No name here holds the similarities: those of two chunks would be in memory at once.
        found = with_chunk(found, _similarities(queries, chunk, start, own_row), start, k)
    return found if share.count == 1 else _over_all(found, share.count, k)


def _similarities(queries: Tensor, chunk: Tensor, start: int, own_row: int | None) -> Tensor:
    rows = chunk.to(queries.device, torch.float32)
    # Dividing the products by the norms spares a copy of the rows.
    similarities = (queries @ rows.T).div_(_norms(rows))
    if own_row is not None:
        similarities.diagonal(own_row - start).fill_(-torch.inf)
    return similarities


def with_chunk(found: Neighbours, similarities: Tensor, start: int, k: int) -> Neighbours:
    """Take up the rows of a further chunk that are nearer than the farthest of k found so far.

    After the first chunks these are few; only they are sorted out, not the whole chunk.

    Args:
        found: The k nearest of the rows before ``start``, or all of them if there are fewer; in
            the bank's order.
        similarities: To the rows from ``start`` on, (N, m).
        start: Row of the first column.
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
    """Keep the k nearest of neighbours that stand in the bank's order, or all if fewer."""
    if similarities.shape[1] <= k:
        return Neighbours(similarities, indices)
    chosen = largest(similarities, k)
    return Neighbours(similarities.gather(1, chosen), indices.gather(1, chosen))


def largest(values: Tensor, k: int) -> Tensor:
    """Return the columns of the k largest values of each row, in ascending order.

    Of equal values the first ones are chosen; ``topk`` alone would choose as its search happens
    to go.

    Args:
        values: (N, m).
        k: At most m.

    Returns:
        int64 (N, k).
    """
    width = min(k + 1, values.shape[1])
    top, columns = values.topk(width, dim=1)
    if width > k:  # the last place may be contested by columns that topk did not choose
        contested = (top[:, k - 1] == top[:, k]).nonzero().squeeze(1)
        columns = columns[:, :k]
        # Sorting takes some 24 bytes per value; so it takes about one for each value of all rows.
        for rows in torch.split(contested, math.ceil(len(values) / 24)):
            order = values[rows].sort(dim=1, descending=True, stable=True).indices
            columns[rows] = order[:, :k]
    return columns.sort(dim=1).values


def _few(marks: Tensor, most: int) -> tuple[Tensor, Tensor] | None:
    """Return the columns of each row's marks, if no row has more than ``most``.

    Args:
        marks: bool (N, m).
        most: Bounds the memory too.

    Returns:
        Columns in ascending order, (N, largest number of marks in a row), and which of them are
        marks; the others fill up the shorter rows.
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
    """Merge the lists of all processes; one whose share is below k fills up with -inf."""
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
