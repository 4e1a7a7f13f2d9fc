"""Classification by nearest neighbours: a vote weighted by cosine similarity.

Wu et al. 2018 (InstDis), Section 3.4.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from rsa_eval.features import LabelledFeatures
from rsa_eval.knn_config import KNNSetting
from rsa_eval.metrics import NOTHING_COUNTED, TopKCounts, count_top_k


def knn_counts(
    bank: LabelledFeatures,
    queries: LabelledFeatures,
    settings: Sequence[KNNSetting],
    num_classes: int,
    chunk_size: int,
    device: torch.device,
) -> list[TopKCounts]:
    """Classify every query by its neighbours in the bank, by all settings in one pass.

    Args:
        bank: The voters; more memory than the bank itself takes only one chunk of similarities,
            ``chunk_size`` times the bank's size in float32.
        queries: The classified.
        settings: Votes to count; a k beyond the bank's size takes the whole bank.
        num_classes: Classes there are, also those without a voter.
        chunk_size: Queries compared at a time; the last chunk may be smaller.
        device: Where the comparison runs.

    Returns:
        Counts by setting, in the given order.
    """
    bank_features = functional.normalize(bank.features.to(device), dim=1)  # (M, D)
    bank_labels = bank.labels.to(device)
    largest_k = min(max(setting.k for setting in settings), len(bank_labels))
    counts = [NOTHING_COUNTED] * len(settings)
    for start in range(0, len(queries.labels), chunk_size):
        chunk = queries.features[start : start + chunk_size].to(device)
        labels = queries.labels[start : start + chunk_size].to(device)
        similarities = functional.normalize(chunk, dim=1) @ bank_features.T  # (N, M)
        nearest, indices = nearest_neighbours(similarities, largest_k)  # both (N, largest_k)
        voters = bank_labels[indices]
        for position, setting in enumerate(settings):
            scores = class_scores(
                nearest[:, : setting.k], voters[:, : setting.k], num_classes, setting.temperature
            )
            counts[position] += count_top_k(scores, labels)
    return counts


def nearest_neighbours(similarities: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the k largest similarities of each row and where they stand, largest first.

    Of equal similarities the one that stands first in the row is the nearer, so that the k-th
    neighbour does not depend on how ``topk`` happens to search.

    Args:
        similarities: (N, M).
        k: At most M.

    Returns:
        Similarities and their columns, both (N, k).
    """
    width = min(k + 1, similarities.shape[1])
    values, columns = similarities.topk(width, dim=1)
    if width > k:  # the last place may be contested by columns that topk did not choose
        contested = (values[:, k - 1] == values[:, k]).nonzero().squeeze(1)
        values, columns = values[:, :k], columns[:, :k]
        if len(contested):
            rows = similarities[contested].sort(dim=1, descending=True, stable=True)
            values[contested], columns[contested] = rows.values[:, :k], rows.indices[:, :k]
    columns, by_column = columns.sort(dim=1)
    values, by_value = values.gather(1, by_column).sort(dim=1, descending=True, stable=True)
    return values, columns.gather(1, by_value)


def class_scores(
    similarities: Tensor, voters: Tensor, num_classes: int, temperature: float | None
) -> Tensor:
    """Add up the neighbours' votes: score_c = Σ exp(s / T)·1[y = c], or the number of them.

    Each row is divided by exp(s_max / T): the ranking stays, and a small temperature does not
    overflow. Votes are summed in float64.

    Args:
        similarities: Of the neighbours, largest first, (N, k).
        voters: Their class indices, int64 (N, k).
        num_classes: Number of classes C.
        temperature: T > 0; None counts each neighbour as one.

    Returns:
        Scores, float64 (N, C); 0 for a class without a vote.
    """
    if temperature is None:
        votes = torch.ones_like(similarities, dtype=torch.float64)
    else:
        votes = ((similarities.double() - similarities[:, :1].double()) / temperature).exp()
    scores = votes.new_zeros(len(votes), num_classes)
    return scores.scatter_add_(1, voters, votes)
