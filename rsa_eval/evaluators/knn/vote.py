"""Classify by nearest neighbours: a vote weighted by cosine similarity.

Wu et al. 2018 (InstDis), Section 3.4.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from rsa_eval.evaluators.knn.settings import KNNSetting
from rsa_eval.evaluators.shared.metrics import NOTHING_COUNTED, TopKCounts, count_top_k
from rsa_eval.evaluators.shared.neighbours import plan_chunks, search, unit_rows
from rsa_eval.features.labelled import LabelledFeatures
from rsa_eval.features.share import ALONE, Share
from rsa_pretrain.plumbing.errors import UserError


def knn_counts(
    bank: LabelledFeatures,
    queries: LabelledFeatures | None,
    settings: Sequence[KNNSetting],
    num_classes: int,
    memory_budget_mib: int,
    device: torch.device,
    share: Share = ALONE,
) -> list[TopKCounts]:
    """Classify every query by its neighbours in the bank, under all settings in one pass.

    Args:
        bank: The voters, of any float type; may be mapped from a file.
        queries: Features to classify; None classifies each voter by all others (leave one out).
        settings: Votes to count; a k beyond the bank's size takes the whole bank.
        num_classes: All classes, including those without a voter.
        memory_budget_mib: Memory for the comparison beside the features, in MiB.
        device: Where the comparison runs.
        share: The part of the bank this process compares; all processes count the same.

    Returns:
        Counts by setting, in the given order.

    Raises:
        UserError: If a feature is not finite, or leave one out has a single image.
    """
    asked = bank if queries is None else queries
    num_voters = len(bank.labels) - (queries is None)
    if num_voters == 0:
        raise UserError("a single image has no neighbours; leave-one-out needs two or more")
    k = min(max(setting.k for setting in settings), num_voters)
    width = bank.features.shape[1]
    plan = plan_chunks(memory_budget_mib, len(asked.labels), width, k, num_classes)
    bank_labels = bank.labels.to(device)
    counts = [NOTHING_COUNTED] * len(settings)
    for start in range(0, len(asked.labels), plan.num_queries):
        chunk = slice(start, start + plan.num_queries)
        own_row = start if queries is None else None
        found = search(
            unit_rows(asked.features[chunk], device),
            bank.features,
            k,
            plan.num_rows,
            share,
            own_row,
        ).nearest_first()
        voters = bank_labels[found.indices]
        labels = asked.labels[chunk].to(device)
        for position, setting in enumerate(settings):
            nearest = found.similarities[:, : setting.k]
            scores = class_scores(nearest, voters[:, : setting.k], num_classes, setting.temperature)
            counts[position] += count_top_k(scores, labels)
    return counts


def class_scores(
    similarities: Tensor, voters: Tensor, num_classes: int, temperature: float | None
) -> Tensor:
    """Add up the neighbours' votes: score_c = Σ exp(s / T)·1[y = c], or the plain vote count.

    Each row is divided by exp(s_max / T), which keeps the ranking and avoids overflow at a small
    temperature. Votes are summed in float64.

    Args:
        similarities: Similarities of the neighbours, largest first, (N, k).
        voters: Their class indices, int64 (N, k).
        num_classes: Number of classes C.
        temperature: T > 0; None counts each neighbour as one.

    Returns:
        Scores, float64 (N, C); minus infinity for a class without a vote.
    """
    if temperature is None:
        votes = torch.ones_like(similarities, dtype=torch.float64)
    else:
        votes = ((similarities.double() - similarities[:, :1].double()) / temperature).exp()
    scores = votes.new_full((len(votes), num_classes), -torch.inf)
    # A class with a vote starts at 0, because its weight may underflow.
    return scores.scatter_(1, voters, 0.0).scatter_add_(1, voters, votes)
