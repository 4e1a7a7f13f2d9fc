"""Select the largest values of each row, ties in the order of the columns."""

import math

import torch
from torch import Tensor


def reads_are_free(device: torch.device) -> bool:
    """Return whether reading a tensor's values is cheap.

    To learn a value on a GPU, such as the number of marks, the CPU waits for all queued work.
    """
    return device.type == "cpu"


def largest(values: Tensor, k: int) -> Tensor:
    """Return the columns of the k largest values of each row, in ascending order.

    Ties go to the first columns; ``topk`` alone breaks ties arbitrarily.

    Args:
        values: (N, m).
        k: At most m.

    Returns:
        int64 (N, k).
    """
    choose = _sorting_the_contested if reads_are_free(values.device) else _without_reading
    return choose(values, k).sort(dim=1).values


def _sorting_the_contested(values: Tensor, k: int) -> Tensor:
    """Sort the few rows in which columns that ``topk`` did not choose tie for the last place."""
    width = min(k + 1, values.shape[1])
    top, columns = values.topk(width, dim=1)
    if width > k:
        contested = (top[:, k - 1] == top[:, k]).nonzero().squeeze(1)
        columns = columns[:, :k]
        # Sorting takes some 24 bytes per value; a 24th of the rows at a time bounds the memory.
        for rows in torch.split(contested, math.ceil(len(values) / 24)):
            order = values[rows].sort(dim=1, descending=True, stable=True).indices
            columns[rows] = order[:, :k]
    return columns


def _without_reading(values: Tensor, k: int) -> Tensor:
    """Select twice: the values above the k-th, then the first columns that equal it."""
    top, columns = values.topk(k, dim=1)
    last = top[:, -1:]
    num_above = (top > last).sum(dim=1, keepdim=True)
    last_column = values.shape[1] - 1
    reversed_columns = torch.arange(last_column, -1, -1, dtype=torch.int32, device=values.device)
    # The first column has the largest number. Where fewer than k are equal, zeros follow, unused.
    equal = torch.where(values == last, reversed_columns, 0).topk(k, dim=1).values
    place = torch.arange(k, device=values.device) - num_above  # (N, k); negative above the k-th
    first_equal = last_column - equal.long().gather(1, place.clamp_min(0))
    return torch.where(place < 0, columns, first_equal)


def few(marks: Tensor, most: int) -> tuple[Tensor, Tensor] | None:
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
