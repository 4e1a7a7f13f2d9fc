"""Approximate the Hessian of logistic regression by blocks that are cheap to factorise."""

from dataclasses import dataclass

import torch
from torch import Tensor

from rsa_eval.evaluators.logistic.objective import MeanLoss, Point
from rsa_pretrain.plumbing.errors import UserError

# Relative to the mean diagonal, keeps L regular where a direction has no curvature; grows until it
# outweighs the rounding of float32 products.
_RIDGE = 1e-9
_RIDGE_GROWTH = 10.0
# Values of one block per class, of which there are three copies; beyond, the mean has to suffice.
_MOST_VALUES = 2**25


@dataclass(frozen=True)
class Preconditioner:
    """Coordinates V = Lᵀ W, in which the Hessian is nearly the identity.

    Attributes:
        factors: L of each group of outputs, lower triangular, float64 (G, D + 1, D + 1) or
            (G, D, D), where G is 1 or the number of outputs K.
    """

    factors: Tensor

    def variables(self, coefficients: Tensor) -> Tensor:
        """Map coefficients, (D + 1, K) or (D, K), to V, (G, D + 1, K / G) or (G, D, K / G)."""
        return self.factors.mT @ self._grouped(coefficients)

    def coefficients(self, variables: Tensor) -> Tensor:
        """Map V to coefficients."""
        found: Tensor = torch.linalg.solve_triangular(self.factors.mT, variables, upper=True)
        return found.movedim(0, 1).flatten(1)

    def gradient(self, gradient: Tensor) -> Tensor:
        """Map a gradient by the coefficients to that by V."""
        found: Tensor = torch.linalg.solve_triangular(
            self.factors, self._grouped(gradient), upper=False
        )
        return found

    def newton(self, gradient: Tensor) -> Tensor:
        """Multiply a gradient by the approximate inverse of the Hessian."""
        return self.coefficients(self.gradient(gradient))

    def _grouped(self, coefficients: Tensor) -> Tensor:
        return coefficients.reshape(len(coefficients), len(self.factors), -1).movedim(1, 0)


class ClassHessians:
    """The Hessian's diagonal blocks, averaged over all classes or of each, up to a factor.

    They change along the path, mostly by a factor: those of one point, scaled, serve until a round
    fails to converge. The first time, the blocks of single classes follow.

    Args:
        loss: The loss.
        start: Where to take the first mean.

    Attributes:
        num_groups: 1, or the number of classes once each has its own block.
    """

    def __init__(self, loss: MeanLoss, start: Point) -> None:
        self._loss = loss
        self.num_groups = 1
        self._take(start)

    def update(self, point: Point) -> None:
        """Take the blocks of a point, those of single classes if there is memory for them."""
        size, num_outputs = self._loss.shape
        if num_outputs * size**2 <= _MOST_VALUES:
            self.num_groups = num_outputs
        self._take(point)

    def preconditioner(self, point: Point, penalty: float) -> Preconditioner:
        """Return that of a point's objective divided by its value.

        Raises:
            UserError: If a product of features overflows.
        """
        hessians = self._blocks * self._curvatures(point)[:, None, None]
        diagonals = hessians.diagonal(dim1=1, dim2=2)
        diagonals[:, : point.num_weights] += penalty
        hessians /= point.value(penalty)
        if not hessians.isfinite().all():
            raise UserError("products of features overflow float32; divide features by a constant")
        ridge = _RIDGE * float(diagonals.mean())
        while True:
            diagonals += ridge
            factors: Tensor
            factors, failed = torch.linalg.cholesky_ex(hessians)
            if not failed.any():
                return Preconditioner(factors)
            ridge *= _RIDGE_GROWTH

    def _take(self, point: Point) -> None:
        blocks = self._loss.hessians(point.coefficients, self.num_groups)
        self._blocks = blocks / self._curvatures(point)[:, None, None]

    def _curvatures(self, point: Point) -> Tensor:
        """Return the mean curvature of each group's outputs, (G,), positive."""
        curvatures = point.curvature.reshape(self.num_groups, -1).mean(dim=1)
        return curvatures.clamp_min(torch.finfo(curvatures.dtype).tiny)
