"""Classify by ridge regression: every C from one decomposition, chosen by leaving one image out.

Targets are 1 for an image's class and -1 for the others. The weights minimise
C Σ |y - W x - b|² + |W|², which is scikit-learn's ``RidgeClassifier`` with alpha = 1 / C. With the
eigenvectors of the centred features' products every C costs one product, and the prediction for an
image by the fit without it follows from that with it. A C at which float64 does not resolve that is
left out.
"""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rsa_eval.evaluators.logistic.choice import choice_warnings
from rsa_eval.evaluators.logistic.fit import LinearClassifier, answers_of
from rsa_eval.evaluators.logistic.ridge_fits import RidgeFits
from rsa_eval.evaluators.logistic.settings import SearchConfig
from rsa_eval.evaluators.shared.answers import kept_answers
from rsa_eval.evaluators.shared.feature_checks import classes_of
from rsa_eval.evaluators.shared.labelled_images import accuracies
from rsa_eval.evaluators.shared.metrics import ranks
from rsa_eval.features.labelled import LabelledFeatures
from rsa_eval.records.record import WARNINGS, Scores
from rsa_pretrain.plumbing.errors import UserError

_log = logging.getLogger(__name__)

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
        UserError: If an image has no class, widths differ, no class has two training images, or
            float64 resolves no C.
    """
    num_classes = classes_of(train, test, num_classes)
    if int(torch.bincount(train.labels).max()) == 1:
        raise UserError(
            f"all {len(train.labels):,} training images are of different classes, so that none can "
            "be left out to choose C; add images"
        )
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
    """Return the smallest of the best C, and a record's details of the choice; warn of doubts.

    Args:
        trials: One per C that float64 resolves, in increasing order.
        search: Values of C.
        measure: Name of the measure that chooses.

    Raises:
        UserError: If there is none.
    """
    if not trials:
        raise UserError(_unresolved(search.strengths, is_all=True))
    c = max(trials, key=lambda trial: trial.score).c
    details: dict[str, Any] = {
        "C": c,
        "C_at_edge": len(trials) > 1 and c in (trials[0].c, trials[-1].c),
        "leave_one_out": [{"c": trial.c, measure: trial.score} for trial in trials],
    }
    tried = [trial.c for trial in trials]
    warnings = choice_warnings(search.strengths, tried, c)
    skipped = [strength for strength in search.strengths if strength not in tried]
    if skipped:
        warnings.append(_unresolved(skipped, is_all=False))
    if warnings:
        details[WARNINGS] = warnings
    for text in warnings:
        _log.warning("%s", text)
    return c, details


def _unresolved(strengths: Sequence[float], *, is_all: bool) -> str:
    """Say at which C no image can be left out, what follows of it, and what to do."""
    first, last = strengths[0], strengths[-1]
    if len(strengths) == 1:
        values = f"C = {first:g},"
    else:
        values = f"{len(strengths)} values of C, {first:g} to {last:g},"
    consequence = "no C can be chosen" if is_all else "no better C was looked for there"
    exponents = "search.min_exponent and search.max_exponent" if is_all else "search.max_exponent"
    return (
        f"float64 does not resolve leaving out an image at {values} for features of this size, so "
        f"that {consequence}; multiply all features, of training and test images, by one small "
        f"number, such as 0.001, or lower {exponents}"
    )


class RidgePath:
    """Ridge regression on the same images for any C, float64.

    Args:
        train: Features, which may be mapped from a file or on a GPU, and labels.
        device: Where to compute; None computes where the features are.
    """

    def __init__(self, train: LabelledFeatures, device: torch.device | None = None) -> None:
        self._classes, self._labels = torch.unique(train.labels, return_inverse=True)
        self._device = train.features.device if device is None else device
        sizes = torch.bincount(self._labels).to(self._device, torch.float64)
        target_mean = 2 * (sizes / len(train.labels)) - 1
        self._fits = RidgeFits(train.features, self._targets, target_mean)

    def classifier(self, c: float) -> LinearClassifier:
        """Return the fit with this C on all images."""
        return LinearClassifier(*self._fits.fit(c), self._classes)

    def leave_one_out(self, strengths: Sequence[float], headline: str = "top1") -> list[LeftOut]:
        """Return the accuracy of each C on every image by the fit on all others.

        Args:
            strengths: Values of C.
            headline: ``top1``, or ``mean_per_class`` for the mean over the classes.

        Returns:
            One per C that float64 resolves.
        """

        def hits(scores: Tensor, rows: slice) -> Tensor:
            labels = self._labels[rows]
            right = labels[ranks(scores, labels.to(scores.device)).cpu() == 0]
            return torch.bincount(right, minlength=len(self._classes))

        sizes = torch.bincount(self._labels).cpu()
        found = []
        for c, blocks in self._fits.left_out(strengths, hits).items():
            right = torch.stack(blocks).sum(dim=0)
            if headline == "mean_per_class":
                # Equal shares have equal means in any order.
                score = 100 * math.fsum((right.double() / sizes).tolist()) / len(sizes)
            else:
                score = 100 * float(right.sum()) / len(self._labels)
            found.append(LeftOut(c, score))
        return found

    def _targets(self, rows: slice) -> Tensor:
        """Return targets of some images, (n, K)."""
        labels = self._labels[rows].to(self._device)
        shape = len(labels), len(self._classes)
        targets = torch.full(shape, -1.0, dtype=torch.float64, device=self._device)
        return targets.scatter_(1, labels[:, None], 1.0)
