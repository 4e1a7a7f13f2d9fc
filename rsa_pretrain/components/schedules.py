"""Compute learning rate, EMA momentum and beta as pure functions of progress in [0, 1].

Step k of K has progress k / K, for k = 0 … K - 1.
"""

from typing import Literal

from fvcore.common.param_scheduler import (
    CompositeParamScheduler,
    CosineParamScheduler,
    LinearParamScheduler,
)


def cosine(start: float, end: float, progress: float) -> float:
    """Half a cosine from ``start`` to ``end``: end + (start - end) (cos(pi progress) + 1) / 2.

    With end = 1 this is BYOL's momentum.
    """
    return float(CosineParamScheduler(start, end)(progress))


def rsa_beta(beta_base: float, mode: Literal["decay", "fixed"], progress: float) -> float:
    """Weight of the aggressive-aggressive pairs: RSA Eq. 6, or ``beta_base`` throughout."""
    return beta_base if mode == "fixed" else cosine(beta_base, 0.0, progress)


def warmup_cosine(peak: float, warmup: float, progress: float) -> float:
    """Linear ramp from 0 to ``peak``, then half a cosine to 0.

    Args:
        peak: Highest value.
        warmup: Share of the run taken by the ramp, in [0, 1).
        progress: In [0, 1).
    """
    if warmup == 0:
        return cosine(peak, 0.0, progress)
    schedule = CompositeParamScheduler(
        [LinearParamScheduler(0.0, peak), CosineParamScheduler(peak, 0.0)],
        lengths=[warmup, 1 - warmup],
        interval_scaling=["rescaled", "rescaled"],
    )
    return float(schedule(progress))
