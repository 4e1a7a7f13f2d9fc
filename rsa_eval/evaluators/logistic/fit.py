"""Fit multinomial logistic regression by scikit-learn's L-BFGS, and select its C.

The objective is C Σ loss + |W|² / 2, where W excludes the intercepts; a smaller C regularises more.
"""

import copy
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits
from torch import Tensor

from rsa_eval.evaluators.shared.convergence import counting_cut_short
from rsa_eval.evaluators.shared.metrics import Answers, answer
from rsa_eval.features.labelled import LabelledFeatures
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.progress import progress_bar

_SCORED_AT_ONCE = 8192
_VALUES_OF_ONE_THREAD = 4_000_000


@dataclass(frozen=True)
class LogisticFit:
    """A fitted classifier and its convergence."""

    estimator: LogisticRegression
    converged: bool
    iterations: int


class Fitter:
    """Fits one C after another on the same images, each warm-started from the last.

    Up to the intercepts the minimum is unique, so the starting point affects the time but,
    within the tolerance, not the result.

    Args:
        train: Features and labels of at least two classes; the fit is in float64.
        max_iterations: Limit per fit.
        tolerance: A fit ends when no component of the mean loss's gradient is larger.
        intercept: Fit an intercept per class.
        start: A fit of the same classes to start from.

    Raises:
        UserError: If all images are of one class.
    """

    def __init__(
        self,
        train: LabelledFeatures,
        *,
        max_iterations: int,
        tolerance: float,
        intercept: bool = True,
        start: LogisticFit | None = None,
    ) -> None:
        self._features = train.features.double().numpy()
        self._labels = train.labels.numpy()
        if len(np.unique(self._labels)) < 2:
            raise UserError(
                f"all {len(self._labels):,} training images are of class {self._labels[0]}; "
                "logistic regression needs two classes or more"
            )
        self._estimator = LogisticRegression(
            max_iter=max_iterations, tol=tolerance, fit_intercept=intercept, warm_start=True
        )
        if start is not None:
            self._estimator.coef_ = start.estimator.coef_
            self._estimator.intercept_ = start.estimator.intercept_

    def fit(self, c: float) -> LogisticFit:
        """Fit with this C."""
        with counting_cut_short() as cut_short, _few_threads(self._features.size):
            self._estimator.set_params(C=c).fit(self._features, self._labels)
        iterations = int(self._estimator.n_iter_.max())
        return LogisticFit(copy.copy(self._estimator), not cut_short.count, iterations)


def _few_threads(num_values: int) -> AbstractContextManager[object]:
    """Keep linear algebra in one thread for few values.

    Its threads wait for one another in every small product: on two busy cores two threads took 67
    times as long as one, for 1,437 features of 128 dimensions.
    """
    return threadpool_limits(1, "blas") if num_values <= _VALUES_OF_ONE_THREAD else nullcontext()


@dataclass(frozen=True)
class TriedC:
    """One C and its accuracy on the held-out images."""

    c: float
    top1: float
    """In percent."""
    converged: bool
    iterations: int


@dataclass(frozen=True)
class ChosenC:
    """The C most accurate on the held-out images; ties go to the smallest."""

    c: float
    fit: LogisticFit
    """Its fit on the remaining images."""
    trials: list[TriedC]

    @property
    def at_edge(self) -> bool:
        """True if the best C is the smallest or largest tried, so that another may be better.

        A plateau that reaches the edge is represented by its smallest C.
        """
        return len(self.trials) > 1 and self.c in (self.trials[0].c, self.trials[-1].c)


def choose_c(
    fitter: Fitter, held_out: LabelledFeatures, strengths: Sequence[float], num_classes: int
) -> ChosenC:
    """Fit every C and keep the one most accurate on held-out training images.

    Args:
        fitter: Fits on the rest of the training images.
        held_out: Features and labels of the held-out images.
        strengths: Values of C in increasing order.
        num_classes: Number of classes.
    """
    trials: list[TriedC] = []
    best: tuple[int, float, LogisticFit] | None = None
    with progress_bar(len(strengths), "logistic regression", "fit") as bar:
        for c in strengths:
            fit = fitter.fit(c)
            counts = answers_of(fit, held_out, num_classes).counts
            trials.append(TriedC(c, counts.top1_percent, fit.converged, fit.iterations))
            if best is None or counts.top1 > best[0]:
                best = counts.top1, c, fit
            bar.update()
    assert best is not None
    return ChosenC(best[1], best[2], trials)


def answers_of(fit: LogisticFit, images: LabelledFeatures, num_classes: int) -> Answers:
    """Classify images.

    Args:
        fit: The classifier; it never predicts a class it has not seen.
        images: Features and labels of the images to classify.
        num_classes: Number of classes.
    """
    parts = []
    for start in range(0, len(images.labels), _SCORED_AT_ONCE):
        rows = slice(start, start + _SCORED_AT_ONCE)
        scores = _class_scores(fit.estimator, images.features[rows], num_classes)
        parts.append(answer(scores, images.labels[rows]))
    return Answers.sound(parts)


def _class_scores(estimator: LogisticRegression, features: Tensor, num_classes: int) -> Tensor:
    """Return logits, float64 (N, C); minus infinity for classes that were not fitted."""
    logits: npt.NDArray[np.float64] = estimator.decision_function(features.double().numpy())
    if logits.ndim == 1:  # for two classes scikit-learn returns only the second's logit
        logits = np.stack([np.zeros_like(logits), logits], axis=1)
    scores = torch.full((len(features), num_classes), -torch.inf, dtype=torch.float64)
    scores[:, torch.from_numpy(estimator.classes_)] = torch.from_numpy(logits)
    return scores
