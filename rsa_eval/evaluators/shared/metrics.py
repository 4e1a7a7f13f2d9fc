"""Count top-1 and top-5 hits, divided once at the end."""

from dataclasses import dataclass

import torch
from torch import Tensor

_K = 5


@dataclass(frozen=True)
class TopKCounts:
    """Number of samples whose class ranks first, and among the first five."""

    top1: int
    top5: int
    total: int

    def __add__(self, other: "TopKCounts") -> "TopKCounts":
        return TopKCounts(self.top1 + other.top1, self.top5 + other.top5, self.total + other.total)

    @property
    def top1_percent(self) -> float:
        """Top-1 in percent.

        Raises:
            ValueError: If nothing was counted.
        """
        if self.total == 0:
            raise ValueError("no samples were counted")
        return 100 * self.top1 / self.total

    def percentages(self, num_classes: int) -> dict[str, float]:
        """Return ``top1`` and ``top5`` in percent.

        Args:
            num_classes: Number of classes; with five or fewer ``top5`` is left out, because any
                ranking of all classes would be right.

        Raises:
            ValueError: If nothing was counted.
        """
        top1 = {"top1": self.top1_percent}
        return top1 if num_classes <= _K else top1 | {"top5": 100 * self.top5 / self.total}


NOTHING_COUNTED = TopKCounts(0, 0, 0)


def ranks(scores: Tensor, labels: Tensor) -> Tensor:
    """Count the classes that rank before each sample's true one.

    Among equal scores the lower index ranks first, so constant scores give chance accuracy.

    Args:
        scores: Higher is better, (N, …, C); minus infinity for a class that cannot be predicted (no
            vote, or never trained on).
        labels: Class indices, int64 (N,).

    Returns:
        int64 (N, …); at least C + 5 where the true class cannot be predicted.
    """
    num_classes = scores.shape[-1]
    labels = labels.view(-1, *[1] * (scores.ndim - 1))
    own = scores.gather(-1, labels.expand(*scores.shape[:-1], 1))  # (N, …, 1)
    lower_index = torch.arange(num_classes, device=scores.device) < labels  # (N, …, C)
    before = ((scores > own) | ((scores == own) & lower_index)).sum(dim=-1)
    return before.masked_fill_(own[..., 0] == -torch.inf, num_classes + _K)


class TopKHits:
    """Counts hits on the scores' device; reading the counts there would make the CPU wait.

    Args:
        device: The scores' device.
    """

    def __init__(self, device: torch.device) -> None:
        # Samples ranked first, among the first five, and without a rank.
        self._counts = torch.zeros(3, dtype=torch.int64, device=device)
        self._total = 0

    def add(self, scores: Tensor, labels: Tensor) -> None:
        """Rank each sample's true class by its scores, (N, C), as ``ranks`` does."""
        rank = ranks(scores, labels)
        unranked = scores.isnan().any(dim=1)
        self._counts += torch.stack([rank < 1, rank < _K, unranked]).sum(dim=1)
        self._total += len(labels)

    def read(self) -> TopKCounts:
        """Return the counts so far.

        Raises:
            ValueError: If a score was NaN, which has no rank.
        """
        top1, top5, unranked = self._counts.tolist()
        if unranked:
            raise ValueError("scores contain NaN")
        return TopKCounts(top1, top5, self._total)


def count_top_k(scores: Tensor, labels: Tensor) -> TopKCounts:
    """Count the hits among one batch of samples, as ``TopKHits`` does.

    Args:
        scores: Higher is better, (N, C); minus infinity for a class that cannot be predicted.
        labels: Class indices, int64 (N,).

    Raises:
        ValueError: If a score is NaN, which has no rank.
    """
    hits = TopKHits(scores.device)
    hits.add(scores, labels)
    return hits.read()
