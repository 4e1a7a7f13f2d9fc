"""Solve ridge regression for any C, and predict each image by the fit without it."""

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from rsa_eval.evaluators.logistic.decomposition import CentredFeatures, Decomposition

# Bound of the error of a fit, and of an image's prediction by the fit without it.
_TOLERANCE = 1e-3
_EPSILON = torch.finfo(torch.float64).eps


class RidgeSolution:
    """Ridge regression with any C by one decomposition of the features.

    An image's residual by the fit without it is that by the fit with it, divided by
    1 - leverage (Golub, Heath & Wahba 1979). Where the decomposition has the images in a complete
    basis, both are sums of 1 / (1 + C eigenvalue), which do not cancel.

    Args:
        features: The features.
        decomposition: Their decomposition.
        targets: Returns targets of some of the images, float64 (n, K).
        target_mean: Mean of all targets, (K,).
    """

    def __init__(
        self,
        features: CentredFeatures,
        decomposition: Decomposition,
        targets: Callable[[slice], Tensor],
        target_mean: Tensor,
    ) -> None:
        self._parts, self._targets, self._target_mean = decomposition, targets, target_mean
        self._count = len(features.features)
        images, distinct = decomposition.images, decomposition.distinct
        self._squares = torch.zeros_like(target_mean)
        projected = torch.zeros(
            features.features.shape[1] if images is None else images.shape[1], len(target_mean)
        ).to(target_mean)
        if distinct is not None:
            self._sums = projected.new_zeros(len(distinct.copies), len(target_mean))
        for rows, block in features.blocks():
            centred = targets(rows) - target_mean
            self._squares += centred.square().sum(dim=0)
            projected += (block if images is None else images[rows]).T @ centred
            if distinct is not None:
                self._sums.index_add_(0, distinct.places[rows], centred)
        self._projected = projected if images is not None else decomposition.basis.T @ projected

    def weights(self, c: float) -> Tensor:
        """Return the weights of the fit with this C on all images, (D, K)."""
        return self._parts.basis @ (self._projected * self._shrinkage(c)[:, None])

    def fits(self, c: float) -> bool:
        """Say whether the fit with this C is accurate."""
        return self._parts.error(c) <= _TOLERANCE

    def leaves_out(self, c: float, least: float = 1.0) -> bool:
        """Say whether leaving out is accurate at this C.

        Args:
            c: C.
            least: The least 1 - leverage of an image.
        """
        if self._parts.images is None and least * _TOLERANCE <= _EPSILON:
            return False
        # Targets y have residuals A y. For a relative error ε, that is A^½ (1 + E) A^½ with
        # |E| ≤ ε in place of A, residual i is wrong by at most ε √(A_ii yᵀ A y) (Cauchy-Schwarz),
        # and after the division by A_ii, 1 - leverage, by ε √(yᵀ A y / A_ii); the N
        # images are taken to share the error evenly.
        spread = math.sqrt(self._least_objective(c) / least)
        return min(self._parts.error(c) / least, self._parts.relative_error(c) * spread) <= (
            _TOLERANCE
        )

    def without(
        self, rows: slice, features: Tensor, strengths: Sequence[float]
    ) -> Iterator[tuple[Tensor, float]]:
        """Predict images by the fits without them, for one C after another.

        Args:
            rows: Places of the images.
            features: Their centred features, (n, D).
            strengths: Values of C.

        Yields:
            Their scores, (n, K), and the least 1 - leverage of them.
        """
        images = self._parts.images
        known = features @ self._parts.basis if images is None else images[rows]
        targets = self._targets(rows)
        for c in strengths:
            residuals, freedom = self._residuals(rows, known, targets, c)
            yield targets - residuals / freedom[:, None], max(float(freedom.min()), _EPSILON**2)

    def _residuals(
        self, rows: slice, known: Tensor, targets: Tensor, c: float
    ) -> tuple[Tensor, Tensor]:
        """Return images' residuals, (n, K), and 1 - leverage, (n,), by the fit on all images."""
        shrinkage, distinct = self._shrinkage(c), self._parts.distinct
        if distinct is None:
            fitted = known @ (self._projected * shrinkage[:, None])
            freedom = 1 - 1 / self._count - known.square() @ shrinkage
            return targets - self._target_mean - fitted, freedom
        remaining, places = shrinkage / c, distinct.places[rows]
        copies = distinct.copies[places]
        of_copies = known @ (self._projected * remaining[:, None])
        # Zero for an image without copies.
        own = targets - self._target_mean - self._sums[places] / copies[:, None]
        return own + of_copies, (copies - 1) / copies + known.square() @ remaining

    def _least_objective(self, c: float) -> float:
        """Return yᵀ A y / N, the least Σ |y - W x - b|² + |W|² / C per image, of the worst column.

        A maps targets to residuals.
        """
        squares, shrinkage = self._projected.square(), self._shrinkage(c)
        if self._parts.images is None:
            objective = self._squares - shrinkage @ squares
        else:
            objective = shrinkage @ squares / c
        return max(float(objective.max()), 0.0) / self._count

    def _shrinkage(self, c: float) -> Tensor:
        return (self._parts.eigenvalues + 1 / c).reciprocal()
