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


def count_top_k(scores: Tensor, labels: Tensor) -> TopKCounts:
    """Rank each sample's true class among all classes.

    Among equal scores the lower index ranks first, so constant scores give chance accuracy. A class
    that cannot be predicted (no vote, or never trained on) is not ranked.

    Args:
        scores: Higher is better, (N, C); minus infinity for a class that cannot be predicted.
        labels: Class indices, int64 (N,).

    Raises:
        ValueError: If a score is NaN, which has no rank.
    """
    if scores.isnan().any():
        raise ValueError("scores contain NaN")
    own = scores.gather(1, labels[:, None])  # (N, 1)
    lower_index = torch.arange(scores.shape[1], device=scores.device) < labels[:, None]  # (N, C)
    rank = ((scores > own) | ((scores == own) & lower_index)).sum(dim=1)  # (N,)
    rank.masked_fill_(own[:, 0] == -torch.inf, scores.shape[1] + _K)
    return TopKCounts(int((rank < 1).sum()), int((rank < _K).sum()), len(labels))
