"""Classify by ridge regression: every C from one Gram matrix, chosen by leaving one image out.

Targets are 1 for an image's class and -1 for the others. The weights minimise
C Σ |y - W x - b|² + |W|², which is scikit-learn's ``RidgeClassifier`` with alpha = 1 / C. With the
eigenvectors of the centred features' Gram matrix every C costs one product, and the prediction for
an image by the fit without it follows from that with it (Golub, Heath & Wahba 1979).
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rsa_eval.evaluators.logistic.choice import edge_warning
from rsa_eval.evaluators.logistic.fit import LinearClassifier, answers_of
from rsa_eval.evaluators.logistic.settings import SearchConfig
from rsa_eval.evaluators.shared.answers import kept_answers
from rsa_eval.evaluators.shared.feature_checks import classes_of
from rsa_eval.evaluators.shared.labelled_images import accuracies
from rsa_eval.evaluators.shared.metrics import ranks
from rsa_eval.features.labelled import LabelledFeatures
from rsa_eval.records.record import WARNINGS, Scores
from rsa_pretrain.plumbing.progress import progress_bar

_log = logging.getLogger(__name__)

_BLOCK_ROWS = 8192
_SEARCH = SearchConfig()


def ridge_regression(
    train: LabelledFeatures,
    test: LabelledFeatures,
    search: SearchConfig = _SEARCH,
    *,
    num_classes: int | None = None,
    device: torch.device | None = None,
    headline: str = "top1",
) -> Scores:
    """Classify test images by ridge regression, its C chosen by leaving one image out.

    Args:
        train: Features of the training images, (N, D).
        test: Features of the test images, (M, D).
        search: Values of C; what else it has is not used.
        num_classes: Number of classes; None takes the largest training label plus one.
        device: Where to compute; None computes where the features are.
        headline: ``top1``, or ``mean_per_class`` for the mean over the classes.

    Returns:
        The headline, ``top1`` and, for more than five classes, ``top5``, in percent; the
        chosen ``C``, the smallest of the best, and the accuracy of every other in
        ``details``.

    Raises:
        UserError: If an image has no class, or widths differ.
    """
    num_classes = classes_of(train, test, num_classes)
    path = RidgePath(train, device)
    trials = path.leave_one_out(search.strengths, headline)
    c, details = choose_left_out(trials, search, headline)
    answers = answers_of(path.classifier(c), test, num_classes)
    predictions = kept_answers(test.labels, {"": [answers]}, num_classes)
    return Scores(
        metrics=accuracies(answers.counts, predictions, headline),
        headline=headline,
        num_samples=len(test.labels),
        details=details,
        predictions=predictions,
    )


@dataclass(frozen=True)
class LeftOut:
    """One C, and its score on images left out one at a time."""

    c: float
    score: float
    """In percent."""


def choose_left_out(
    trials: Sequence[LeftOut], search: SearchConfig, measure: str
) -> tuple[float, dict[str, Any]]:
    """Return the smallest of the best C, and a record's details of the choice.

    Args:
        trials: What was tried, in increasing order of C.
        search: Values of C.
        measure: Name of the measure that chooses.
    """
    c = max(trials, key=lambda trial: trial.score).c
    at_edge = len(trials) > 1 and c in (trials[0].c, trials[-1].c)
    details: dict[str, Any] = {
        "C": c,
        "C_at_edge": at_edge,
        "leave_one_out": [{"c": trial.c, measure: trial.score} for trial in trials],
    }
    if at_edge:
        details[WARNINGS] = [edge_warning(search)]
        _log.warning("%s", edge_warning(search))
    return c, details


class RidgePath:
    """Ridge regression on the same images for any C, float64.

    Args:
        train: Features, which may be mapped from a file or on a GPU, and labels.
        device: Where to compute; None computes where the features are.
    """

    def __init__(self, train: LabelledFeatures, device: torch.device | None = None) -> None:
        self._features = train.features
        self._classes, self._labels = torch.unique(train.labels, return_inverse=True)
        self._device = train.features.device if device is None else device
        self._count = len(train.labels)
        width, num_classes = train.features.shape[1], len(self._classes)
        self._mean = self._zeros(width)
        self._target_mean = self._zeros(num_classes)
        for features, targets in self._blocks():
            self._mean += features.sum(dim=0) / self._count
            self._target_mean += targets.sum(dim=0) / self._count
        gram, cross = self._zeros(width, width), self._zeros(width, num_classes)
        for features, targets in self._blocks():
            centred = features - self._mean
            gram += centred.T @ centred
            cross += centred.T @ (targets - self._target_mean)
        eigenvalues, self._basis = torch.linalg.eigh(gram)
        self._eigenvalues = eigenvalues.clamp_min(0)
        self._projected = self._basis.T @ cross

    def classifier(self, c: float) -> LinearClassifier:
        """Return the fit with this C on all images."""
        weights = self._basis @ (self._projected * self._shrinkage(c)[:, None])
        intercepts = self._target_mean - self._mean @ weights
        return LinearClassifier(weights, intercepts, self._classes)

    def leave_one_out(self, strengths: Sequence[float], headline: str = "top1") -> list[LeftOut]:
        """Return the accuracy of each C on every image by the fit on all others.

        Args:
            strengths: Values of C.
            headline: ``top1``, or ``mean_per_class`` for the mean over the classes.
        """

        def hits(scores: Tensor, labels: Tensor) -> Tensor:
            right = labels[ranks(scores, labels) == 0].cpu()
            return torch.bincount(right, minlength=len(self._classes)).double()

        found = []
        for c, blocks in self.left_out(strengths, hits).items():
            right = torch.stack(blocks).sum(dim=0)
            if headline == "mean_per_class":
                score = (100 * right / torch.bincount(self._labels).cpu()).mean()
            else:
                score = 100 * right.sum() / self._count
            found.append(LeftOut(c, float(score)))
        return found

    def left_out(
        self, strengths: Sequence[float], measure: Callable[[Tensor, Tensor], Tensor]
    ) -> dict[float, list[Tensor]]:
        """Measure every image's scores by the fit on all others, for each C.

        Args:
            strengths: Values of C.
            measure: Of the scores, (n, K), and the places of the images' classes, (n,), of a block.

        Returns:
            What it returned for successive blocks.
        """
        found: dict[float, list[Tensor]] = {c: [] for c in strengths}
        with progress_bar(self._count, "leave one out", "img") as bar:
            for features, targets in self._blocks():
                rotated = (features - self._mean) @ self._basis
                labels = targets.argmax(dim=1)
                for c, blocks in found.items():
                    blocks.append(measure(self._scores_without(rotated, targets, c), labels))
                bar.update(len(labels))
        return found

    def _scores_without(self, rotated: Tensor, targets: Tensor, c: float) -> Tensor:
        """Return each image's scores by the fit without it, (n, K)."""
        shrinkage = self._shrinkage(c)
        scores = self._target_mean + rotated @ (self._projected * shrinkage[:, None])
        leverage = 1 / self._count + rotated.square() @ shrinkage  # (n,)
        without: Tensor = targets - (targets - scores) / (1 - leverage)[:, None]
        return without

    def _shrinkage(self, c: float) -> Tensor:
        shrinkage: Tensor = (self._eigenvalues + 1 / c).reciprocal()
        return shrinkage

    def _blocks(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield features, (n, D), and targets, (n, K), of blocks of images."""
        for start in range(0, self._count, _BLOCK_ROWS):
            rows = slice(start, start + _BLOCK_ROWS)
            features = self._features[rows].to(self._device, torch.float64)
            labels = self._labels[rows].to(self._device)
            targets = torch.full_like(self._target_mean.expand(len(labels), -1), -1.0)
            yield features, targets.scatter_(1, labels[:, None], 1.0)

    def _zeros(self, *shape: int) -> Tensor:
        return torch.zeros(shape, dtype=torch.float64, device=self._device)
