"""Minimise the objective of logistic regression for one penalty after another.

L-BFGS with strong-Wolfe line searches (Nocedal & Wright 2006, Chapters 3 and 7) runs in
coordinates in which the Hessian is nearly the identity: V = Lᵀ W, where L Lᵀ is the mean over the
classes of the Hessian's diagonal blocks or, where that does not suffice, of each class its block.
In these coordinates half the squared gradient estimates the distance to the minimum. Once L-BFGS
has taken many steps, the Hessian is not so near the identity: Newton steps by conjugate gradients
(Chapter 7.1) follow, which estimate the distance by the Hessian itself.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from rsa_eval.evaluators.logistic.newton import newton_step
from rsa_eval.evaluators.logistic.objective import MeanLoss, Point
from rsa_eval.evaluators.logistic.preconditioner import ClassHessians, Preconditioner

# Iterations between updates of L, each of which forgets the steps taken.
_ROUND = 100
# Iterations of L-BFGS after which its end is no longer taken for the minimum.
_EASY = 20
# Products with the Hessian that check an earlier end; a single one of many features, where each
# takes longer than an iteration.
_CHECKS = 3
_MANY_VALUES = 2**22
# Steps along it.
_MOST_STEPS = 5
# Weights that lower the objective by less, relatively, are as good as zero: a usual tolerance of it
# is below the precision of float64.
_LEAST_WORTH = 1e-8
# Steps from which L-BFGS estimates curvature; each keeps two copies of the coefficients. Those of
# many classes are fewer, as many as these float64 values hold, 512 MiB, but no fewer than 10.
_MEMORY = 50
_LEAST_MEMORY = 10
_STORED_VALUES = 2**26
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
        self._hessians = ClassHessians(loss, self._last)

    def minimise(self, penalty: float) -> Minimum:
        """Minimise the mean loss + penalty |W|² / 2, penalty > 0."""
        found, preconditioner = self._descend(penalty)
        is_hard = self._hessians.num_groups > 1 or found.iterations > _EASY
        if not is_hard and found.iterations < self._max_iterations:
            found = self._check(found, penalty, preconditioner)
        is_near = found.gap <= self._tolerance and not is_hard
        if not is_near and found.iterations < self._max_iterations:
            self._loss.product_dtype = torch.float64
            point = self._loss.at(found.point.coefficients)
            if is_hard:
                self._hessians.update(point)
                preconditioner = self._hessians.preconditioner(point, penalty)
            found = self._polish(point, found.iterations, penalty, preconditioner)
        self._before, self._last = self._last.coefficients, found.point
        return found

    def _descend(self, penalty: float) -> tuple[Minimum, Preconditioner]:
        """Minimise by L-BFGS; return the last preconditioner, too."""
        self._loss.product_dtype = torch.float32
        point, done = self._start(penalty), 0
        while True:
            preconditioner = self._hessians.preconditioner(point, penalty)
            round_ = _Round(self._loss, penalty, point, preconditioner)
            steps = round_.descend(min(_ROUND, self._max_iterations - done), self._tolerance)
            point, done = round_.point, done + steps
            if round_.gap <= self._tolerance or done >= self._max_iterations:
                return Minimum(point, round_.gap, done), preconditioner
            is_stuck = round_.progress <= _NO_PROGRESS
            if self._loss.product_dtype == torch.float64:
                if is_stuck:
                    return Minimum(point, round_.gap, done), preconditioner
            elif is_stuck or steps < _ROUND:
                self._loss.product_dtype = torch.float64
                point = self._loss.at(point.coefficients)
            self._hessians.update(point)

    def _check(self, found: Minimum, penalty: float, preconditioner: Preconditioner) -> Minimum:
        """Estimate the distance from the minimum by a few products with the Hessian.

        Of many features, a step along a product that finds it too large is cheaper than polishing.
        """
        has_many = self._loss.features.numel() > _MANY_VALUES
        num_products, num_steps = (1, _MOST_STEPS) if has_many else (_CHECKS, 0)
        point = found.point
        for done in range(num_steps + 1):
            step = newton_step(self._loss, penalty, point, preconditioner.newton, num_products)
            gap = self._gap(point, step.decrease, penalty)
            if gap <= self._tolerance or done == num_steps:
                break
            lower = self._lower(point, step.direction, penalty)
            if lower is None:
                break
            point = lower
        return Minimum(point, gap, found.iterations + done)

    def _gap(self, point: Point, distance: float, penalty: float) -> float:
        return _relative(distance, point.value(penalty), self._loss.without_features(point))

    def _polish(
        self, point: Point, done: int, penalty: float, preconditioner: Preconditioner
    ) -> Minimum:
        """Take Newton steps until the next one would lower the objective by the tolerance only."""
        while True:
            limit = self._max_iterations - done
            step = newton_step(self._loss, penalty, point, preconditioner.newton, limit)
            done += step.num_products
            is_cut_short = done >= self._max_iterations
            gap = math.inf if is_cut_short else self._gap(point, step.decrease, penalty)
            lower = self._lower(point, step.direction, penalty)
            if lower is None or gap <= self._tolerance or is_cut_short:
                return Minimum(point if lower is None else lower, gap, done)
            point = lower

    def _lower(self, point: Point, direction: Tensor, penalty: float) -> Point | None:
        """Return a lower point along a direction, the whole of it if possible; None if none is."""
        for halvings in range(_MOST_EVALUATIONS):
            moved = self._loss.at(point.coefficients + 0.5**halvings * direction)
            if moved.value(penalty) < point.value(penalty):
                return moved
        return None

    def _start(self, penalty: float) -> Point:
        if self._before is None:
            return self._last
        extrapolated = self._loss.at(2 * self._last.coefficients - self._before)
        return min(self._last, extrapolated, key=lambda point: point.value(penalty))


def _relative(distance: float, value: float, value_without: float) -> float:
    """Return a distance of the objective from its minimum as ``Minimum.gap`` has it.

    Args:
        distance: The distance.
        value: The objective.
        value_without: The same with weights of zero.
    """
    return distance / min(value, max(value_without - value, _LEAST_WORTH * value))


class _Round:
    """The objective, divided by its value at the start, in coordinates V = Lᵀ W.

    torch's L-BFGS has absolute thresholds, of the order of 1e-10. Each point is evaluated once.

    Args:
        loss: The loss.
        penalty: The penalty.
        start: Where to start.
        preconditioner: Gives V.
    """

    def __init__(
        self, loss: MeanLoss, penalty: float, start: Point, preconditioner: Preconditioner
    ) -> None:
        self._loss = loss
        self._penalty = penalty
        self._preconditioner = preconditioner
        self._unit = start.value(penalty)
        self._value_without = loss.without_features(start) / self._unit
        variables = preconditioner.variables(start.coefficients)
        self._variables = variables.contiguous().requires_grad_()
        self._move_to(start)

    @property
    def _memory(self) -> int:
        """Steps to store."""
        affordable = _STORED_VALUES // (2 * self._variables.numel())
        return max(_LEAST_MEMORY, min(_MEMORY, affordable))

    @property
    def progress(self) -> float:
        """Decrease of the objective since the start, relative to the start."""
        return 1 - self._value

    @property
    def gap(self) -> float:
        """Distance from the minimum if the Hessian is the identity, as in ``Minimum``."""
        distance = 0.5 * float(self._gradient.square().sum())
        return _relative(distance, self._value, self._value_without)

    def descend(self, max_steps: int, tolerance: float) -> int:
        """Take L-BFGS steps until converged or the line search fails; return their number."""
        optimizer = torch.optim.LBFGS(
            [self._variables],
            max_iter=1,
            max_eval=_MOST_EVALUATIONS,
            history_size=self._memory,
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
            self._move_to(self._loss.at(self._preconditioner.coefficients(variables)))
        return self._value

    def _move_to(self, point: Point) -> None:
        self.point = point
        self._evaluated = self._variables.detach().clone()
        self._value = point.value(self._penalty) / self._unit
        gradient = self._preconditioner.gradient(point.gradient(self._penalty) / self._unit)
        self._gradient = self._variables.grad = gradient.contiguous()
