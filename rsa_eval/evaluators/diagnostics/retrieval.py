"""Find the nearest training images of test images."""

import torch
from torch import Tensor

from rsa_eval.evaluators.knn.settings import KNNSetting
from rsa_eval.evaluators.knn.vote import class_scores
from rsa_eval.evaluators.shared.memory_plan import budget_on, plan_chunks
from rsa_eval.evaluators.shared.metrics import Answers, answer
from rsa_eval.evaluators.shared.neighbours import Neighbours, nearest_rows
from rsa_eval.features.placement import brought_home
from rsa_eval.features.share import ALONE, Share

_VOTES_AT_ONCE = 1024


def find_neighbours(
    bank: Tensor,
    queries: Tensor | None,
    k: int,
    memory_budget_mib: int | None,
    device: torch.device,
    share: Share = ALONE,
) -> Neighbours:
    """Find the nearest features of a bank by cosine similarity; ties go to the first.

    Args:
        bank: Features, (M, D), of any float type; may be mapped from a file.
        queries: Features, (N, D); None searches, for each row of the bank, all others.
        k: Neighbours per query; a smaller bank gives all its rows.
        memory_budget_mib: Memory for the comparison beside the features, in MiB; None as in
            ``budget_on``.
        device: Where the comparison runs.
        share: The part of the bank this process compares; all processes find the same.

    Returns:
        Neighbours, nearest first, on the CPU.

    Raises:
        UserError: If a feature is not finite.
    """
    k = min(k, len(bank) - (queries is None))
    bank = brought_home(bank, device)
    queries = None if queries is None else brought_home(queries, device)
    num_queries = len(bank) if queries is None else len(queries)
    budget = budget_on(device, memory_budget_mib, share)
    # No class scores are computed here.
    plan = plan_chunks(budget, device, num_queries, bank.shape[1], k, num_classes=0)
    found = [chunk for _, chunk in nearest_rows(bank, queries, k, plan, device, share)]
    similarities, indices = (torch.cat(parts).cpu() for parts in zip(*found, strict=True))
    return Neighbours(similarities, indices)


def classify(
    neighbours: Neighbours,
    bank_labels: Tensor,
    labels: Tensor,
    vote: KNNSetting,
    num_classes: int,
) -> Answers:
    """Classify each query by its neighbours' vote; ties go to the first class.

    Args:
        neighbours: At least as many as vote, or the whole bank.
        bank_labels: Class indices, int64 (M,).
        labels: Class indices of the queries, int64 (N,).
        vote: Number of voting neighbours and their weights.
        num_classes: Number of classes.
    """
    voters = bank_labels[neighbours.indices[:, : vote.k]]
    parts = []
    # In chunks, since the scores of all queries would take N times the number of classes.
    columns = (neighbours.similarities[:, : vote.k], voters, labels)
    for similarities, classes, own in zip(
        *(torch.split(column, _VOTES_AT_ONCE) for column in columns), strict=True
    ):
        scores = class_scores(similarities, classes, num_classes, vote.temperature)
        parts.append(answer(scores, own))
    return Answers.sound(parts)
