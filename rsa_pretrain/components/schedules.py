"""Compute learning rate, EMA momentum and beta as pure functions of progress in [0, 1].

Step k of K has progress k / K, for k = 0 … K - 1.
"""

import math
from typing import Literal

_ROUNDING = 1e-6
"""A step that rounding puts this little before the end of the ramp is at its end."""


def cosine(start: float, end: float, progress: float) -> float:
    """Half a cosine from ``start`` to ``end``: end + (start - end) (cos(pi progress) + 1) / 2.

    With end = 1 this is BYOL's momentum.
    """
    return end + 0.5 * (start - end) * (1 + math.cos(math.pi * progress))


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
    if progress + _ROUNDING <= warmup:
        return peak * (progress / warmup)
    fall = 1 - warmup
    return cosine(peak, 0.0, (progress - (warmup + fall - fall)) / fall)  # rounded as in fvcore
