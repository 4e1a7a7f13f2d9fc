"""Find the nearest training images of test images."""

import torch
from torch import Tensor

from rsa_eval.evaluators.knn.settings import KNNSetting
from rsa_eval.evaluators.knn.vote import class_scores
from rsa_eval.evaluators.shared.neighbours import Neighbours, plan_chunks, search, unit_rows
from rsa_eval.features.share import ALONE, Share

_VOTES_AT_ONCE = 1024


def find_neighbours(
    bank: Tensor,
    queries: Tensor | None,
    k: int,
    memory_budget_mib: int,
    device: torch.device,
    share: Share = ALONE,
) -> Neighbours:
    """Find the nearest features of a bank by cosine similarity; ties go to the first.

    Args:
        bank: Features, (M, D), of any float type; may be mapped from a file.
        queries: Features, (N, D); None searches, for each row of the bank, all others.
        k: Neighbours per query; a smaller bank gives all its rows.
        memory_budget_mib: Memory for the comparison beside the features, in MiB.
        device: Where the comparison runs.
        share: The part of the bank this process compares; all processes find the same.

    Returns:
        Neighbours, nearest first, on the CPU.

    Raises:
        UserError: If a feature is not finite.
    """
    asked = bank if queries is None else queries
    k = min(k, len(bank) - (queries is None))
    # No class scores are computed here.
    plan = plan_chunks(memory_budget_mib, len(asked), bank.shape[1], k, num_classes=0)
    found = []
    for start in range(0, len(asked), plan.num_queries):
        part = unit_rows(asked[start : start + plan.num_queries], device)
        own_row = start if queries is None else None
        found.append(search(part, bank, k, plan.num_rows, share, own_row).nearest_first())
    similarities, indices = (torch.cat(parts).cpu() for parts in zip(*found, strict=True))
    return Neighbours(similarities, indices)


def predict(
    neighbours: Neighbours, bank_labels: Tensor, vote: KNNSetting, num_classes: int
) -> Tensor:
    """Return the class that each query's neighbours vote for; ties go to the first.

    Args:
        neighbours: At least as many as vote, or the whole bank.
        bank_labels: Class indices, int64 (M,).
        vote: Number of voting neighbours and their weights.
        num_classes: Number of classes.

    Returns:
        Class indices, int64 (N,).
    """
    voters = bank_labels[neighbours.indices[:, : vote.k]]
    predictions = []
    # In chunks, since the scores of all queries would take N times the number of classes.
    for similarities, labels in zip(
        torch.split(neighbours.similarities[:, : vote.k], _VOTES_AT_ONCE),
        torch.split(voters, _VOTES_AT_ONCE),
        strict=True,
    ):
        scores = class_scores(similarities, labels, num_classes, vote.temperature)
        predictions.append(scores.argmax(dim=1))
    return torch.cat(predictions)
