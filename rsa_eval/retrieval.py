"""The nearest training images of test images."""

import torch
from torch import Tensor

from rsa_eval.knn import class_scores
from rsa_eval.knn_config import KNNSetting
from rsa_eval.neighbours import Neighbours, search, unit_rows
from rsa_eval.share import ALONE

# A part of the bank, and of the queries' scores by class, in rows.
_BANK_ROWS = 65_536
_VOTES_AT_ONCE = 1024


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

    Returns:
        The nearest first, on the CPU.
    """
    k = min(k, len(bank))
    found = [
        search(unit_rows(part, device), bank, k, _BANK_ROWS, ALONE, None).nearest_first()
        for part in torch.split(queries, chunk_size)
    ]
    similarities, indices = (torch.cat(parts).cpu() for parts in zip(*found, strict=True))
    return Neighbours(similarities, indices)


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
