"""Fit multinomial logistic regression for one C after another, and select its C.

The objective is C Σ loss + |W|² / 2, where W excludes the intercepts; a smaller C regularises more.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from rsa_eval.evaluators.logistic.minimise import PathSolver
from rsa_eval.evaluators.logistic.objective import MeanLoss, sigmoid_loss, softmax_loss
from rsa_eval.evaluators.shared.metrics import Answers, answer
from rsa_eval.features.labelled import LabelledFeatures
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.progress import progress_bar

_SCORED_AT_ONCE = 8192
_VALUES_OF_ONE_THREAD = 4_000_000


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
        start: A fit of the same classes to start from.
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
        features, self._basis = train.features, None
        self._count, self._intercept = len(labels), intercept
        if self._count < features.shape[1]:
            features, self._basis = _spanned(features if rows is None else features[rows])
            rows = None
        self._num_values = features.numel()
        is_binary = len(self._classes) == 2
        if is_binary:
            targets = 2 * targets[:, None] - 1
        loss = MeanLoss(
            features,
            targets,
            sigmoid_loss if is_binary else softmax_loss,
            1 if is_binary else len(self._classes),
            rows=rows,
            intercept=intercept,
            device=device,
        )
        with _few_threads(self._num_values):
            self._solver = PathSolver(
                loss,
                tolerance=tolerance,
                max_iterations=max_iterations,
                start=None if start is None else self._reduced(start.coefficients),
            )
        self._tolerance = tolerance

    def fit(self, c: float) -> LogisticFit:
        """Fit with this C."""
        with _few_threads(self._num_values):
            found = self._solver.minimise(1 / (c * self._count))
        coefficients = self._widened(found.point.coefficients)
        return LogisticFit(
            self._classifier(coefficients),
            coefficients,
            found.gap <= self._tolerance,
            found.iterations,
        )

    def _classifier(self, coefficients: Tensor) -> LinearClassifier:
        if len(self._classes) == 2:  # the first class has logit 0
            coefficients = torch.cat([torch.zeros_like(coefficients), coefficients], dim=1)
        if not self._intercept:
            return LinearClassifier(coefficients, torch.zeros_like(coefficients[0]), self._classes)
        return LinearClassifier(coefficients[:-1], coefficients[-1], self._classes)

    def _reduced(self, coefficients: Tensor) -> Tensor:
        """Return coefficients of the features as ones of the fitted features."""
        return coefficients if self._basis is None else self._mapped(self._basis.T, coefficients)

    def _widened(self, coefficients: Tensor) -> Tensor:
        """Return coefficients of the fitted features as ones of the features."""
        return coefficients if self._basis is None else self._mapped(self._basis, coefficients)

    def _mapped(self, basis: Tensor, coefficients: Tensor) -> Tensor:
        if not self._intercept:
            return basis @ coefficients
        return torch.cat([basis @ coefficients[:-1], coefficients[-1:]])


def _spanned(features: Tensor) -> tuple[Tensor, Tensor]:
    """Return features, (N, D) with N < D, in the space they span, (N, N), and its basis, (D, N)."""
    basis, triangle = torch.linalg.qr(features.double().T)
    return triangle.T.float(), basis


@contextmanager
def _few_threads(num_values: int) -> Iterator[None]:
    """Keep linear algebra in one thread for few values.

    Its threads wait for one another in every small product: on two busy cores two threads took 67
    times as long as one, for 1,437 features of 128 dimensions.
    """
    before = torch.get_num_threads()
    if num_values <= _VALUES_OF_ONE_THREAD:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


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
    fitter: Fitter,
    images: LabelledFeatures,
    strengths: Sequence[float],
    num_classes: int,
    rows: Tensor | None = None,
) -> ChosenC:
    """Fit every C and keep the one most accurate on held-out training images.

    Args:
        fitter: Fits on the rest of the training images.
        images: Features and labels that include the held-out images.
        strengths: Values of C in increasing order.
        num_classes: Number of classes.
        rows: Indices of the held-out images; None takes all.
    """
    trials: list[TriedC] = []
    best: tuple[int, float, LogisticFit] | None = None
    with progress_bar(len(strengths), "logistic regression", "fit") as bar:
        for c in strengths:
            fit = fitter.fit(c)
            counts = answers_of(fit.classifier, images, num_classes, rows).counts
            trials.append(TriedC(c, counts.top1_percent, fit.converged, fit.iterations))
            if best is None or counts.top1 > best[0]:
                best = counts.top1, c, fit
            bar.update()
    assert best is not None
    return ChosenC(best[1], best[2], trials)


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
    if rows is None:
        rows = torch.arange(len(images.labels))
    parts = []
    for chosen in torch.split(rows, _SCORED_AT_ONCE):
        scores = classifier.scores(images.features[chosen], num_classes)
        parts.append(answer(scores, images.labels[chosen].to(scores.device)))
    return Answers.sound(parts)
