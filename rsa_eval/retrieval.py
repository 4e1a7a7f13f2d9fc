"""The nearest training images of test images."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from rsa_eval.knn import class_scores, nearest_neighbours
from rsa_eval.knn_config import KNNSetting

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
    """Find the nearest features of a bank by cosine similarity.

    Args:
        bank: Features, (M, D).
        queries: Features, (N, D).
        k: Neighbours of each; a smaller bank gives all it has.
        chunk_size: Queries compared at a time, which bounds the memory.
        device: Where the comparison runs.
    """
    unit_bank = functional.normalize(bank.to(device).float(), dim=1)
    found = []
    for chunk in torch.split(queries, chunk_size):
        similarities = functional.normalize(chunk.to(device).float(), dim=1) @ unit_bank.T
        values, indices = nearest_neighbours(similarities, min(k, len(bank)))
        found.append((values.cpu(), indices.cpu()))
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
