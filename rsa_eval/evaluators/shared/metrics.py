"""Read answers from scores, and count top-1 and top-5 hits, divided once at the end."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

_K = 5


@dataclass(frozen=True)
class TopKCounts:
    """Number of samples whose class ranks first, and among the first five."""

    top1: int
    top5: int
    total: int

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


def answer(scores: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return what a classifier's scores say of each sample.

    Args:
        scores: Higher is better, (N, …, C); minus infinity for a class that cannot be predicted.
        labels: Class indices, int64 (N,).

    Returns:
        The predicted classes, the lowest of equal scores; the ranks of the true ones; and whether
        a score is NaN, which has no rank; each (N, …).
    """
    # Of equal scores argmax takes the first.
    return scores.argmax(dim=-1), ranks(scores, labels), scores.isnan().any(dim=-1)


@dataclass(frozen=True)
class Answers:
    """A classifier's answers to N samples.

    Attributes:
        predicted: Class of the highest score, the lowest index among equal ones, (N,).
        ranks: Number of classes ranked before the true one, (N,).
    """

    predicted: npt.NDArray[np.int32]
    ranks: npt.NDArray[np.int32]

    @property
    def counts(self) -> TopKCounts:
        """The hits."""
        top1, top5 = (int((self.ranks < k).sum()) for k in (1, _K))
        return TopKCounts(top1, top5, len(self.ranks))

    @classmethod
    def of(cls, parts: Sequence[Sequence[Tensor]]) -> Self | None:
        """Join the answers to successive batches, as ``answer`` returns them, on any device.

        Returns:
            None if a score was NaN.
        """
        columns = [torch.cat(column).int() for column in zip(*parts, strict=True)]
        predicted, its_ranks, broken = torch.stack(columns).cpu().numpy()  # one wait for a GPU
        return None if broken.any() else cls(predicted, its_ranks)

    @classmethod
    def sound(cls, parts: Sequence[Sequence[Tensor]]) -> Self:
        """Join as ``of``.

        Raises:
            ValueError: If a score was NaN.
        """
        found = cls.of(parts)
        if found is None:
            raise ValueError("scores contain NaN")
        return found
