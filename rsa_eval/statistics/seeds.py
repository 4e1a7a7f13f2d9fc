"""Compare two methods over seeds: t tests of trials, and a bootstrap over seeds and images."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from rsa_eval.statistics.bootstrap import SEED
from rsa_eval.statistics.intervals import LEVEL, FloatArray, IntArray, Interval

# Percentage points; trials are multiples of 100 / N, so that smaller differences are rounding.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class SeedTest:
    """Result of a t test between the trials of two methods, in percentage points."""

    difference: float
    """Mean of the first method less that of the second."""
    interval: Interval
    """Student's interval of the difference."""
    p: float
    """Two-sided p-value of no difference."""
    standard_error: float
    """Of the difference."""
    degrees_of_freedom: float
    is_paired: bool
    """True if trials of both methods were compared seed by seed."""


def welch(first: Sequence[float], second: Sequence[float], level: float = LEVEL) -> SeedTest:
    """Compare methods with different seeds, and possibly different spread over them.

    Welch 1947, Biometrika 34(1/2). Without any spread over seeds the interval has no width, and p
    is 1 for equal means, 0 for different ones.

    Args:
        first: One number a trial of the first method, at least two.
        second: The same for the second method; the numbers of trials may differ.
        level: Nominal coverage of the interval, in (0, 1).

    Raises:
        ValueError: If a method has fewer than two trials.
    """
    means, parts, degrees = [], [], []
    for values in (first, second):
        mean, variance = _mean_and_variance(values)
        means.append(mean)
        parts.append(variance / len(values))
        degrees.append(len(values) - 1)
    if sum(parts) > 0:
        spread = sum(part**2 / degree for part, degree in zip(parts, degrees, strict=True))
        num_degrees = sum(parts) ** 2 / spread
    else:
        num_degrees = float(sum(degrees))
    return _t_test(means[0] - means[1], math.sqrt(sum(parts)), num_degrees, level, False)


def paired_t(first: Sequence[float], second: Sequence[float], level: float = LEVEL) -> SeedTest:
    """Compare methods seed by seed, by Student's test of the differences.

    Without any spread of the differences the interval has no width, and p is 1 where they are zero,
    0 otherwise.

    Args:
        first: One number a seed for the first method, at least two.
        second: Those of the second method, in the same order of seeds.
        level: Nominal coverage of the interval, in (0, 1).

    Raises:
        ValueError: If there are fewer than two seeds, or the numbers of seeds differ.
    """
    if len(first) != len(second):
        raise ValueError(f"found {len(first)} and {len(second)} trials; pairs need equally many")
    differences = [one - other for one, other in zip(first, second, strict=True)]
    mean, variance = _mean_and_variance(differences)
    error = math.sqrt(variance / len(differences))
    return _t_test(mean, error, float(len(differences) - 1), level, True)


def hierarchical_differences(
    first: FloatArray, second: FloatArray, *, is_paired: bool, seed: int = SEED
) -> FloatArray:
    """Return bootstrap replicates of a difference between methods, over seeds and images.

    Owen 2007, Ann. Appl. Stat. 1(2) (the pigeonhole bootstrap): images and seeds are resampled
    independently. Replicates of a method are its mean over all seeds in the resample of images,
    plus sqrt(S / (S - 1)) times the deviation from it of the mean over S drawn seeds, since few
    seeds vary too little when resampled. A method with a single seed has no variation over seeds:
    the result says nothing of other seeds then.

    Args:
        first: The metric of each trial of the first method in each resample of images, (B, S).
        second: The same for the second method in the same resamples, (B, T): replicates of both
            must come from one call of ``mean_replicates``, say, with one column a trial.
        is_paired: True if columns of both belong to the same seeds, which are then drawn
            together; S equals T.
        seed: Seeds the draws of seeds.

    Returns:
        Replicates of the first method's mean less the second's, (B,).

    Raises:
        ValueError: If resamples, or paired seeds, are not equally many, or there is no trial.
    """
    if first.ndim != 2 or second.ndim != 2 or len(first) != len(second):
        raise ValueError(f"found replicates {first.shape} and {second.shape}; expected (B, S)")
    if min(first.shape[1], second.shape[1]) < 1:
        raise ValueError("found a method without trials; expected at least one each")
    rng = np.random.default_rng(seed)
    if not is_paired:
        return _over_seeds(first, rng) - _over_seeds(second, rng)
    if first.shape != second.shape:
        raise ValueError(f"found replicates {first.shape} and {second.shape}; pairs need S = T")
    return _over_seeds(first - second, rng)


def _over_seeds(replicates: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Resample the seeds of one method, (B, S), to replicates of its mean, (B,)."""
    num_seeds = replicates.shape[1]
    mean: FloatArray = replicates.mean(axis=1)
    if num_seeds == 1:
        return mean
    drawn: IntArray = rng.integers(num_seeds, size=replicates.shape)
    deviation = np.take_along_axis(replicates, drawn, axis=1).mean(axis=1) - mean
    widened: FloatArray = mean + math.sqrt(num_seeds / (num_seeds - 1)) * deviation
    return widened


def _mean_and_variance(values: Sequence[float]) -> tuple[float, float]:
    """Return mean and sample variance, which is 0 where values differ by rounding alone."""
    if len(values) < 2:
        raise ValueError(f"found {len(values)} trials; expected at least two of each method")
    trials: npt.NDArray[np.float64] = np.array(values, dtype=np.float64)
    variance = trials.var(ddof=1) if np.ptp(trials) > _ROUNDING else 0.0
    return float(trials.mean()), float(variance)


def _t_test(
    difference: float, error: float, degrees: float, level: float, is_paired: bool
) -> SeedTest:
    """Test a difference against zero by its standard error."""
    if error > 0:
        p = 2 * float(stats.t.sf(abs(difference) / error, degrees))
    else:
        p = 1.0 if abs(difference) <= _ROUNDING else 0.0
    reach = float(stats.t.ppf((1 + level) / 2, degrees)) * error
    interval = Interval(difference - reach, difference + reach)
    return SeedTest(difference, interval, p, error, degrees, is_paired)
