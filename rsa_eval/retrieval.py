"""The nearest training images of test images."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from rsa_eval.knn import class_scores, nearest_neighbours
from rsa_eval.knn_config import KNNSetting

# A part of the bank, and of the queries' scores by class, in rows.
_BANK_ROWS = 65_536
_VOTES_AT_ONCE = 1024


@dataclass(frozen=True)
class Neighbours:
    """The k nearest of a bank for each query, the nearest first, on the CPU."""

    similarities: Tensor
    """Cosines, float32 (N, k)."""
    indices: Tensor
    """Rows of the bank, int64 (N, k)."""


def find_neighbours(
    bank: Tensor, queries: Tensor, k: int, chunk_size: int, device: torch.device
) -> Neighbours:
    """Find the nearest features of a bank by cosine similarity; of equal ones the first.

    Args:
        bank: Features, (M, D); a part of it is on the device at a time.
        queries: Features, (N, D).
        k: Neighbours of each; a smaller bank gives all it has.
        chunk_size: Queries compared with a part of the bank at a time.
        device: Where the comparison runs.
    """
    values = torch.empty(len(queries), 0)
    indices = torch.empty(len(queries), 0, dtype=torch.int64)
    for first_row, part in zip(
        range(0, len(bank), _BANK_ROWS), torch.split(bank, _BANK_ROWS), strict=True
    ):
        unit_part = functional.normalize(part.to(device).float(), dim=1)
        found = []
        for rows in torch.split(torch.arange(len(queries)), chunk_size):
            unit_queries = functional.normalize(queries[rows].to(device).float(), dim=1)
            # The nearest so far stand before those of this part: they win where equal.
            similarities = torch.cat([values[rows].to(device), unit_queries @ unit_part.T], dim=1)
            numbers = first_row + torch.arange(len(part)).expand(len(rows), -1)
            candidates = torch.cat([indices[rows], numbers], dim=1)
            nearest, columns = nearest_neighbours(similarities, min(k, similarities.shape[1]))
            found.append((nearest.cpu(), candidates.gather(1, columns.cpu())))
        values, indices = (torch.cat(parts) for parts in zip(*found, strict=True))
    return Neighbours(values, indices)


def predict(
    neighbours: Neighbours, bank_labels: Tensor, vote: KNNSetting, num_classes: int
) -> Tensor:
    """Return the class that each query's neighbours vote for; of equal ones the first.

    Args:
        neighbours: At least as many as vote, or the whole bank.
        bank_labels: Class indices, int64 (M,).
        vote: How many neighbours vote, and how.
        num_classes: Number of classes.

    Returns:
        Class indices, int64 (N,).
    """
    voters = bank_labels[neighbours.indices[:, : vote.k]]
    predictions = []
    # The scores of all queries at once would be as large as N times the number of classes.
    for similarities, labels in zip(
        torch.split(neighbours.similarities[:, : vote.k], _VOTES_AT_ONCE),
        torch.split(voters, _VOTES_AT_ONCE),
        strict=True,
    ):
        scores = class_scores(similarities, labels, num_classes, vote.temperature)
        predictions.append(scores.argmax(dim=1))
    return torch.cat(predictions)
