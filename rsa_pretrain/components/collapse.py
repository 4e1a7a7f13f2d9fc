"""Warn when projections collapse: when different images get nearly the same vector."""

import logging

import torch.nn.functional as F
from torch import Tensor

_log = logging.getLogger(__name__)

COLLAPSED_BELOW = 0.02


def projection_std(projections: Tensor) -> Tensor:
    """Return the mean standard deviation of unit vectors' coordinates, times sqrt(D).

    About 1 for vectors spread over the sphere, 0 for collapsed ones (SimSiam, Section 4.1,
    which plots it without the factor).

    Args:
        projections: (N, D), any norm; receives no gradient.

    Returns:
        Scalar in float32 at least.
    """
    unit = F.normalize(projections.detach().float(), dim=1)
    spread: Tensor = unit.std(dim=0).mean() * unit.shape[1] ** 0.5
    return spread


class CollapseMonitor:
    """Warns once each time the logged ``projection_std`` falls to about zero."""

    def __init__(self) -> None:
        self._collapsed = False

    def check(self, step: int, spread: float) -> None:
        """Check the mean since the last logged line of metrics."""
        collapsed = spread < COLLAPSED_BELOW
        if collapsed and not self._collapsed:
            _log.warning(
                "step %d: projection_std is %.4f; all images get nearly the same projection "
                "(collapse); healthy runs stay well above %g",
                step,
                spread,
                COLLAPSED_BELOW,
            )
        self._collapsed = collapsed
