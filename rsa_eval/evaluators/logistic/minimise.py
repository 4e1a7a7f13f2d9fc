"""Minimise the objective of logistic regression for one penalty after another.

L-BFGS with strong-Wolfe line searches (Nocedal & Wright 2006, Chapters 3 and 7) runs in
coordinates in which the Hessian is nearly the identity: V = Lᵀ W, where L Lᵀ is the mean over the
classes of the Hessian's diagonal blocks or, where that does not suffice, of each class its block.
In these coordinates half the squared gradient estimates the distance to the minimum, which decides
when to stop.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from rsa_eval.evaluators.logistic.objective import MeanLoss, Point
from rsa_pretrain.plumbing.errors import UserError

# Iterations between updates of L, each of which forgets the steps taken.
_ROUND = 100
# Relative to the mean diagonal, keeps L regular where a direction has no curvature; grows until it
# outweighs the rounding of float32 products.
_RIDGE = 1e-9
_RIDGE_GROWTH = 10.0
# Weights that lower the objective by less, relatively, are as good as zero: a usual tolerance of it
# is below the precision of float64.
_LEAST_WORTH = 1e-8
# Steps from which L-BFGS estimates curvature; each keeps two copies of the coefficients.
_MEMORY = 50
# Values of one Hessian per class, of which there are two copies; beyond, the mean has to suffice.
_MOST_VALUES = 2**26
# A line search usually takes one evaluation.
_MOST_EVALUATIONS = 10
# A round that lowers the objective by less, relatively, has reached the limit of its precision.
_NO_PROGRESS = 1e-9


@dataclass(frozen=True)
class Minimum:
    """The end of a minimisation."""

    point: Point
    gap: float
    """Estimated distance of the objective from its minimum, relative to the objective or, if that
    is less, to what the weights have lowered it by, or to 1e-8 of the objective."""
    iterations: int


class PathSolver:
    """Minimises for one penalty after another; each start is extrapolated from the last two ends.

    Up to the intercepts the minimum is unique, so the start affects the time but, within the
    tolerance, not the result.

    Args:
        loss: The loss.
        tolerance: Gap at which to stop, as in ``Minimum``.
        max_iterations: Limit per penalty.
        start: Coefficients to start from; None for zeros.
    """

    def __init__(
        self, loss: MeanLoss, *, tolerance: float, max_iterations: int, start: Tensor | None = None
    ) -> None:
        self._loss = loss
        self._tolerance = tolerance
        self._max_iterations = max_iterations
        if start is None:
            start = torch.zeros(loss.shape, dtype=torch.float64)
        self._last = loss.at(start.to(loss.device))
        self._before: Tensor | None = None
        self._hessians = _Hessians(loss, self._last)

    def minimise(self, penalty: float) -> Minimum:
        """Minimise the mean loss + penalty |W|² / 2, penalty > 0."""
        self._loss.product_dtype = torch.float32
        point, done = self._start(penalty), 0
        while True:
            round_ = _Round(self._loss, penalty, point, self._hessians.factors(point, penalty))
            steps = round_.descend(min(_ROUND, self._max_iterations - done), self._tolerance)
            point, done = round_.point, done + steps
            if round_.gap <= self._tolerance or done >= self._max_iterations:
                break
            is_stuck = round_.progress <= _NO_PROGRESS
            if self._loss.product_dtype == torch.float64:
                if is_stuck:
                    break
            elif is_stuck or steps < _ROUND:
                self._loss.product_dtype = torch.float64
                point = self._loss.at(point.coefficients)
            self._hessians.update(point)
        self._before, self._last = self._last.coefficients, point
        return Minimum(point, round_.gap, done)

    def _start(self, penalty: float) -> Point:
        if self._before is None:
            return self._last
        extrapolated = self._loss.at(2 * self._last.coefficients - self._before)
        return min(self._last, extrapolated, key=lambda point: point.value(penalty))


class _Hessians:
    """The Hessian's diagonal blocks, averaged over all classes or of each, up to a factor.

    They change along the path, mostly by a factor: those of one point, scaled, serve until a round
    fails to converge. The first time, the blocks of single classes follow.

    Args:
        loss: The loss.
        start: Where to take the first mean.
    """

    def __init__(self, loss: MeanLoss, start: Point) -> None:
        self._loss = loss
        self._num_groups = 1
        self._take(start)

    def update(self, point: Point) -> None:
        """Take the blocks of a point, those of single classes if there is memory for them."""
        size, num_outputs = self._loss.shape
        if num_outputs * size**2 <= _MOST_VALUES:
            self._num_groups = num_outputs
        self._take(point)

    def factors(self, point: Point, penalty: float) -> Tensor:
        """Return L, lower triangular, (G, D + 1, D + 1) or (G, D, D), G being 1 or K.

        They are those of a point's objective divided by its value.

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
                return factors
            ridge *= _RIDGE_GROWTH

    def _take(self, point: Point) -> None:
        blocks = self._loss.hessians(point.coefficients, self._num_groups)
        self._blocks = blocks / self._curvatures(point)[:, None, None]

    def _curvatures(self, point: Point) -> Tensor:
        """Return the mean curvature of each group's outputs, (G,), positive."""
        curvatures = point.curvature.reshape(self._num_groups, -1).mean(dim=1)
        return curvatures.clamp_min(torch.finfo(curvatures.dtype).tiny)


class _Round:
    """The objective, divided by its value at the start, in coordinates V = Lᵀ W.

    torch's L-BFGS has absolute thresholds, of the order of 1e-10. Each point is evaluated once.

    Args:
        loss: The loss.
        penalty: The penalty.
        start: Where to start.
        factors: L, as of ``_Hessians.factors``.
    """

    def __init__(self, loss: MeanLoss, penalty: float, start: Point, factors: Tensor) -> None:
        self._loss = loss
        self._penalty = penalty
        self._factors = factors
        self._unit = start.value(penalty)
        self._value_without = loss.without_features(start) / self._unit
        variables = factors.mT @ self._grouped(start.coefficients)
        self._variables = variables.contiguous().requires_grad_()
        self._move_to(start)

    @property
    def progress(self) -> float:
        """Decrease of the objective since the start, relative to the start."""
        return 1 - self._value

    @property
    def gap(self) -> float:
        """Estimated distance from the minimum, as in ``Minimum``."""
        lowered = max(self._value_without - self._value, _LEAST_WORTH * self._value)
        return 0.5 * float(self._gradient.square().sum()) / min(self._value, lowered)

    def descend(self, max_steps: int, tolerance: float) -> int:
        """Take L-BFGS steps until converged or the line search fails; return their number."""
        optimizer = torch.optim.LBFGS(
            [self._variables],
            max_iter=1,
            max_eval=_MOST_EVALUATIONS,
            history_size=_MEMORY,
            tolerance_grad=0.0,
            tolerance_change=0.0,
            line_search_fn="strong_wolfe",
        )
        for step in range(max_steps):
            if self.gap <= tolerance:
                return step
            # torch divides the first step by the gradient's 1-norm; in these coordinates 1 is good.
            first = max(1.0, float(self._gradient.abs().sum()))
            optimizer.param_groups[0]["lr"] = first if step == 0 else 1.0
            before = self._value
            optimizer.step(self._evaluate)  # type: ignore[no-untyped-call]
            if self._evaluate() >= before:
                return step + 1
        return max_steps

    def _evaluate(self) -> float:
        """Return the scaled objective at the variables and set their gradient."""
        variables = self._variables.detach()
        if not torch.equal(variables, self._evaluated):
            found = torch.linalg.solve_triangular(self._factors.mT, variables, upper=True)
            self._move_to(self._loss.at(found.movedim(0, 1).flatten(1)))
        return self._value

    def _move_to(self, point: Point) -> None:
        self.point = point
        self._evaluated = self._variables.detach().clone()
        self._value = point.value(self._penalty) / self._unit
        gradient = self._grouped(point.gradient(self._penalty) / self._unit)
        slope = torch.linalg.solve_triangular(self._factors, gradient, upper=False)
        self._gradient = self._variables.grad = slope.contiguous()

    def _grouped(self, coefficients: Tensor) -> Tensor:
        """Return (D + 1, K) as (G, D + 1, K / G)."""
        return coefficients.reshape(len(coefficients), len(self._factors), -1).movedim(1, 0)
