"""Solve for Newton's step of logistic regression by conjugate gradients."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from rsa_eval.evaluators.logistic.objective import MeanLoss, Point

# Conjugate gradients stop when so many iterations have added less than a tenth of the decrease: the
# decrease that is left is about what the last ones added (Strakos & Tichy 2002).
_DELAY = 10
_SHARE = 0.1
# Relative to that of the preconditioner, curvature that rounding alone leaves where there is none:
# the loss does not change with a constant added to all intercepts.
_ROUNDING = 100 * torch.finfo(torch.float64).eps


@dataclass(frozen=True)
class NewtonStep:
    """An approximate Newton step.

    Attributes:
        direction: As the coefficients.
        decrease: By how much it lowers the objective's quadratic model, an estimate of the distance
            from the minimum.
        num_products: Products with the Hessian that it took.
    """

    direction: Tensor
    decrease: float
    num_products: int


def newton_step(
    loss: MeanLoss,
    penalty: float,
    point: Point,
    precondition: Callable[[Tensor], Tensor],
    max_products: int,
) -> NewtonStep:
    """Minimise the quadratic model of the objective at a point.

    Args:
        loss: The loss.
        penalty: The penalty.
        point: Where.
        precondition: Multiplies a gradient by an approximate inverse of the Hessian.
        max_products: Limit.
    """
    residual = -point.gradient(penalty)
    direction = torch.zeros_like(residual)
    search = precondition(residual)
    size = float((residual * search).sum())
    decreases: list[float] = []
    while size > 0 and len(decreases) < max_products:
        product = loss.hessian_product(point.coefficients, search)
        product[: point.num_weights] += penalty * search[: point.num_weights]
        curvature = float((search * product).sum())
        if curvature <= _ROUNDING * size:
            decreases.append(size / 2)
            break
        length = size / curvature
        direction += length * search
        residual = residual - length * product  # preconditioning may have returned it as it is
        decreases.append(length * size / 2)
        if len(decreases) > _DELAY and sum(decreases[-_DELAY:]) <= _SHARE * sum(decreases):
            break
        preconditioned = precondition(residual)
        new_size = float((residual * preconditioned).sum())
        search = preconditioned + new_size / size * search
        size = new_size
    return NewtonStep(direction, sum(decreases), len(decreases))
