"""Fit one C after another on the same images, whatever their loss.

The objective is C Σ loss + |W|² / 2, where W excludes the intercepts; a smaller C regularises more.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from rsa_eval.evaluators.logistic.minimise import PathSolver
from rsa_eval.evaluators.logistic.objective import MeanLoss

_VALUES_OF_ONE_THREAD = 4_000_000


@dataclass(frozen=True)
class PathFit:
    """The minimum for one C."""

    coefficients: Tensor
    """float64, (D + 1, K) with the intercepts in the last row, or (D, K) without."""
    converged: bool
    iterations: int


class FitPath:
    """Fits one C after another.

    With fewer images than features, the fit is in the space that the images span, which contains
    the weights at the minimum.

    Args:
        loss: The mean loss of the images, of their features as they are.
        max_iterations: Limit per fit.
        tolerance: A fit ends at this estimated distance from the minimum, as in ``Minimum``.
        start: Coefficients to start from, (D + 1, K) or (D, K); None for zeros.
    """

    def __init__(
        self, loss: MeanLoss, *, max_iterations: int, tolerance: float, start: Tensor | None = None
    ) -> None:
        if loss.intercept:
            loss = loss.centred()
        self._centre = loss.centre
        self._basis: Tensor | None = None
        if len(loss.targets) < loss.features.shape[1]:
            loss, self._basis = _spanned(loss)
        self._count, self._intercept = len(loss.targets), loss.intercept
        self._num_values = loss.features.numel()
        with _few_threads(self._num_values):
            self._solver = PathSolver(
                loss,
                tolerance=tolerance,
                max_iterations=max_iterations,
                start=None if start is None else self._reduced(start),
            )
        self._tolerance = tolerance

    def fit(self, c: float) -> PathFit:
        """Fit with this C."""
        with _few_threads(self._num_values):
            found = self._solver.minimise(1 / (c * self._count))
        coefficients = self._widened(found.point.coefficients)
        return PathFit(coefficients, found.gap <= self._tolerance, found.iterations)

    def _reduced(self, coefficients: Tensor) -> Tensor:
        """Return coefficients of the features as ones of the fitted features."""
        if self._centre is not None:
            coefficients = _shifted(coefficients, self._centre)
        return coefficients if self._basis is None else self._mapped(self._basis.T, coefficients)

    def _widened(self, coefficients: Tensor) -> Tensor:
        """Return coefficients of the fitted features as ones of the features."""
        if self._basis is not None:
            coefficients = self._mapped(self._basis, coefficients)
        return coefficients if self._centre is None else _shifted(coefficients, -self._centre)

    def _mapped(self, basis: Tensor, coefficients: Tensor) -> Tensor:
        if not self._intercept:
            return basis @ coefficients
        return torch.cat([basis @ coefficients[:-1], coefficients[-1:]])


def _shifted(coefficients: Tensor, shift: Tensor) -> Tensor:
    """Return the coefficients, the last row intercepts, of features less a shift, (D,)."""
    weights, intercepts = coefficients[:-1], coefficients[-1:]
    return torch.cat([weights, intercepts + shift.to(weights.device) @ weights])


def _spanned(loss: MeanLoss) -> tuple[MeanLoss, Tensor]:
    """Return a loss of N < D images in the space they span, and the basis of it, (D, N)."""
    basis, triangle = torch.linalg.qr(loss.all_features().T)
    reduced = MeanLoss(
        triangle.T,
        loss.targets,
        loss.loss,
        loss.shape[1],
        intercept=loss.intercept,
        device=loss.device,
    )
    return reduced, basis


@contextmanager
def _few_threads(num_values: int) -> Iterator[None]:
    """Keep linear algebra in one thread for few values.

    Its threads wait for one another in every small product: on two busy cores scikit-learn's fit of
    1,437 features of 128 dimensions took 67 times as long with two threads as with one.
    """
    before = torch.get_num_threads()
    if num_values <= _VALUES_OF_ONE_THREAD:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
