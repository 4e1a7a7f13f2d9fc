"""Classify by nearest neighbours: a vote weighted by cosine similarity.

Wu et al. 2018 (InstDis), Section 3.4.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from rsa_eval.evaluators.knn.settings import KNNSetting
from rsa_eval.evaluators.shared.memory_plan import budget_on, plan_chunks
from rsa_eval.evaluators.shared.metrics import Answers, answer
from rsa_eval.evaluators.shared.neighbours import nearest_rows
from rsa_eval.features.labelled import LabelledFeatures
from rsa_eval.features.placement import brought_home
from rsa_eval.features.share import ALONE, Share
from rsa_pretrain.plumbing.errors import UserError


def knn_answers(
    bank: LabelledFeatures,
    queries: LabelledFeatures | None,
    settings: Sequence[KNNSetting],
    num_classes: int,
    memory_budget_mib: int | None,
    device: torch.device,
    share: Share = ALONE,
) -> list[Answers]:
    """Classify every query by its neighbours in the bank, under all settings in one pass.

    Args:
        bank: The voters, of any float type; may be mapped from a file. They are copied to the
            device if they fit into a quarter of its free memory.
        queries: Features to classify; None classifies each voter by all others (leave one out).
        settings: Votes to take; a k beyond the bank's size takes the whole bank.
        num_classes: All classes, including those without a voter.
        memory_budget_mib: Memory for the comparison beside the features, in MiB; None as in
            ``budget_on``.
        device: Where the comparison runs.
        share: The part of the bank this process compares; all processes find the same.

    Returns:
        Answers by setting, in the given order.

    Raises:
        UserError: If a feature is not finite, or leave one out has a single image.
    """
    num_voters = len(bank.labels) - (queries is None)
    if num_voters == 0:
        raise UserError("a single image has no neighbours; leave-one-out needs two or more")
    k = min(max(setting.k for setting in settings), num_voters)
    voters = brought_home(bank.features, device)
    asked = None if queries is None else brought_home(queries.features, device)
    bank_labels = bank.labels.to(device)
    labels = bank_labels if queries is None else queries.labels.to(device)
    budget = budget_on(device, memory_budget_mib, share)
    plan = plan_chunks(budget, device, len(labels), voters.shape[1], k, num_classes)
    parts: list[list[Sequence[Tensor]]] = [[] for _ in settings]
    for chunk, found in nearest_rows(voters, asked, k, plan, device, share):
        classes = bank_labels[found.indices]
        for setting, own in zip(settings, parts, strict=True):
            nearest = found.similarities[:, : setting.k]
            scores = class_scores(
                nearest, classes[:, : setting.k], num_classes, setting.temperature
            )
            own.append(answer(scores, labels[chunk]))
    return [Answers.sound(own) for own in parts]


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
