"""Fit multinomial logistic regression for one C after another, and classify images.

The objective is C Σ loss + |W|² / 2, where W excludes the intercepts; a smaller C regularises more.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeGuard

import torch
from torch import Tensor

from rsa_eval.evaluators.logistic.objective import MeanLoss, sigmoid_loss, softmax_loss
from rsa_eval.evaluators.logistic.path import FitPath
from rsa_eval.evaluators.shared.metrics import Answers, answer
from rsa_eval.features.labelled import LabelledFeatures
from rsa_pretrain.plumbing.errors import UserError

_SCORED_AT_ONCE = 8192


@dataclass(frozen=True)
class LinearClassifier:
    """A linear classifier of some of the classes.

    Attributes:
        weights: float64, (D, K).
        intercepts: float64, (K,).
        classes: Class of each of the K outputs.
    """

    weights: Tensor
    intercepts: Tensor
    classes: Tensor

    def scores(self, features: Tensor, num_classes: int) -> Tensor:
        """Return logits, float64 (N, C); minus infinity for classes that were not fitted."""
        logits = features.to(self.weights) @ self.weights + self.intercepts
        scores = logits.new_full((len(features), num_classes), -torch.inf)
        scores[:, self.classes] = logits
        return scores


@dataclass(frozen=True)
class LogisticFit:
    """A fitted classifier and its convergence."""

    classifier: LinearClassifier
    coefficients: Tensor
    """Where the minimisation ended, for starting another one."""
    converged: bool
    iterations: int


class Fitter:
    """Fits one C after another on the same images.

    As in scikit-learn, two classes share a weight vector. With fewer images than features, the fit
    is in the space that the images span, which contains the weights at the minimum.

    Args:
        train: Features, which may be mapped from a file or on a GPU, and labels of at least two
            classes.
        max_iterations: Limit per fit.
        tolerance: A fit ends at this estimated distance from the minimum, as in ``Minimum``.
        rows: Indices of the images to fit; None fits all.
        intercept: Fit an intercept per class.
        start: A fit to start from, which serves if it is of the same classes.
        device: Where to compute; None computes where the features are.

    Raises:
        UserError: If all images are of one class.
    """

    def __init__(
        self,
        train: LabelledFeatures,
        *,
        max_iterations: int,
        tolerance: float,
        rows: Tensor | None = None,
        intercept: bool = True,
        start: LogisticFit | None = None,
        device: torch.device | None = None,
    ) -> None:
        labels = train.labels if rows is None else train.labels[rows]
        self._classes, targets = torch.unique(labels, return_inverse=True)
        if len(self._classes) < 2:
            raise UserError(
                f"all {len(labels):,} training images are of class {labels[0]}; "
                "logistic regression needs two classes or more"
            )
        self._intercept = intercept
        is_binary = len(self._classes) == 2
        if is_binary:
            targets = 2 * targets[:, None] - 1
        loss = MeanLoss(
            train.features,
            targets,
            sigmoid_loss if is_binary else softmax_loss,
            1 if is_binary else len(self._classes),
            rows=rows,
            intercept=intercept,
            device=device,
        )
        self._path = FitPath(
            loss,
            max_iterations=max_iterations,
            tolerance=tolerance,
            start=start.coefficients if self._continues(start) else None,
        )

    def fit(self, c: float) -> LogisticFit:
        """Fit with this C."""
        found = self._path.fit(c)
        return LogisticFit(
            self._classifier(found.coefficients),
            found.coefficients,
            found.converged,
            found.iterations,
        )

    def _continues(self, start: LogisticFit | None) -> TypeGuard[LogisticFit]:
        return start is not None and torch.equal(start.classifier.classes, self._classes)

    def _classifier(self, coefficients: Tensor) -> LinearClassifier:
        if len(self._classes) == 2:  # the first class has logit 0
            coefficients = torch.cat([torch.zeros_like(coefficients), coefficients], dim=1)
        if not self._intercept:
            return LinearClassifier(coefficients, torch.zeros_like(coefficients[0]), self._classes)
        return LinearClassifier(coefficients[:-1], coefficients[-1], self._classes)


def answers_of(
    classifier: LinearClassifier,
    images: LabelledFeatures,
    num_classes: int,
    rows: Tensor | None = None,
) -> Answers:
    """Classify images.

    Args:
        classifier: The classifier; it never predicts a class it has not seen.
        images: Features and labels that include the images to classify.
        num_classes: Number of classes.
        rows: Indices of the images to classify; None takes all.
    """
    parts = []
    for chosen, scores in score_blocks(classifier, images.features, num_classes, rows):
        parts.append(answer(scores, images.labels[chosen].to(scores.device)))
    return Answers.sound(parts)


def score_blocks(
    classifier: LinearClassifier, features: Tensor, num_classes: int, rows: Tensor | None = None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Score images block by block.

    Args:
        classifier: The classifier.
        features: (N, D), which may be mapped from a file or on a GPU.
        num_classes: Number of classes C.
        rows: Indices of the images to score; None takes all.

    Yields:
        The indices of a block's images, (n,), and their logits, float64 (n, C).
    """
    if rows is None:
        rows = torch.arange(len(features))
    for chosen in torch.split(rows, _SCORED_AT_ONCE):
        yield chosen, classifier.scores(features[chosen], num_classes)
