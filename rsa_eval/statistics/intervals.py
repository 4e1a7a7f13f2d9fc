"""Compute confidence intervals: of a proportion, of a mean over trials, from replicates."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

LEVEL = 0.95
"""Nominal coverage of every interval, unless stated otherwise."""


@dataclass(frozen=True)
class Interval:
    """Two-sided confidence interval, in the unit of its statistic."""

    low: float
    high: float

    @property
    def half_width(self) -> float:
        """Half the distance between the bounds."""
        return (self.high - self.low) / 2

    def excludes(self, value: float) -> bool:
        """Return whether a value is strictly outside."""
        return not self.low <= value <= self.high


def wilson(num_right: int, total: int, level: float = LEVEL) -> Interval:
    """Return Wilson's score interval of one proportion, in percent.

    Wilson 1927, J. Am. Stat. Assoc. 22(158). It keeps a positive width where all or no images are
    right, and never leaves [0, 100].

    Args:
        num_right: Images that are right, 0 to ``total``.
        total: Images, at least 1.
        level: Nominal coverage, in (0, 1).

    Raises:
        ValueError: If there is no image, or more are right than there are.
    """
    if not 0 <= num_right <= total or total < 1:
        raise ValueError(f"found {num_right} right of {total}; expected 0 to total, total >= 1")
    found = stats.binomtest(num_right, total).proportion_ci(level, method="wilson")
    return Interval(100 * float(found.low), 100 * float(found.high))


def t_interval(values: Sequence[float], level: float = LEVEL) -> Interval | None:
    """Return Student's interval of the mean over independent trials, in their unit.

    Args:
        values: One number a trial.
        level: Nominal coverage, in (0, 1).

    Returns:
        None for fewer than two values, which say nothing of their spread; of zero width where all
        are equal.
    """
    if len(values) < 2:
        return None
    mean = float(np.mean(values))
    error = float(stats.sem(values)) if max(values) > min(values) else 0.0
    reach = float(stats.t.ppf((1 + level) / 2, len(values) - 1)) * error
    return Interval(mean - reach, mean + reach)


def percentile_interval(
    replicates: FloatArray, num_clusters: int, level: float = LEVEL
) -> Interval:
    """Return the expanded percentile interval of bootstrap replicates, in their unit.

    Hesterberg 2015, The American Statistician 69(4), Section 5.3: the plain percentile interval is
    too narrow by sqrt((n - 1) / n), the bootstrap's divisor, and by the normal instead of Student's
    tail. Quantiles at Φ(-sqrt(n / (n - 1)) t), with t that of level and n - 1 degrees of freedom,
    undo both.

    Args:
        replicates: The statistic in each resample, (B,); NaN where it was undefined, which is left
            out.
        num_clusters: Units n that were resampled, at least 1. For 1, t is undefined, and the
            interval spans all replicates.
        level: Nominal coverage, in (0, 1).

    Raises:
        ValueError: If no replicate is defined, or nothing was resampled.
    """
    if num_clusters < 1:
        raise ValueError(f"found {num_clusters} resampled units; expected at least 1")
    defined = replicates[~np.isnan(replicates)]
    if not len(defined):
        raise ValueError("the statistic is undefined in every resample")
    tail = _expanded_tail(num_clusters, level) if num_clusters > 1 else 0.0
    low, high = np.quantile(defined, [tail, 1 - tail])
    return Interval(float(low), float(high))


def interval_of_replicates(
    replicates: FloatArray, num_images: int, smallest_group: int, lowest: float = 0.0
) -> Interval:
    """Return the interval of replicates over images, with a width even if all of them are equal.

    What N images all show may be otherwise on further ones: with a chance of 5 % it is so on more
    than 1 - 0.05^(1/N) of them. N is taken of the smallest group.

    Args:
        replicates: The statistic in each resample, (B,); NaN where it was undefined.
        num_images: Images that were resampled.
        smallest_group: Images behind the least certain part of the statistic, such as a class.
        lowest: Smallest value of the statistic: 0, or -100 for a difference; the largest is 100.
    """
    low, high = float(np.nanmin(replicates)), float(np.nanmax(replicates))
    if low < high:
        found = percentile_interval(replicates, num_images)
        return Interval(max(lowest, found.low), min(100.0, found.high))
    reach = max(100 - low, low - lowest) * (1 - (1 - LEVEL) ** (1 / smallest_group))
    return Interval(max(lowest, low - reach), min(100.0, low + reach))


def _expanded_tail(num_clusters: int, level: float) -> float:
    """Return the probability on each side of the expanded interval."""
    quantile = stats.t.ppf((1 + level) / 2, num_clusters - 1)
    return float(stats.norm.cdf(-math.sqrt(num_clusters / (num_clusters - 1)) * quantile))
