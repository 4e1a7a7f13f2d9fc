"""Test two models on the same images: exact McNemar, equivalence, many comparisons at once."""

from collections.abc import Sequence

import numpy as np
from scipy import stats

from rsa_eval.statistics.intervals import FloatArray


def mcnemar(only_first: int, only_second: int) -> float:
    """Return the exact two-sided p-value of equal accuracies on the same images.

    McNemar 1947, Psychometrika 12(2), with the binomial distribution: images that one model alone
    gets right are equally likely to be either's.

    Args:
        only_first: Images that only the first model gets right.
        only_second: Images that only the second gets right.

    Returns:
        1.0 where the models disagree on no image.

    Raises:
        ValueError: If a count is negative.
    """
    if min(only_first, only_second) < 0:
        raise ValueError(f"found counts {only_first} and {only_second}; expected at least 0")
    if only_first + only_second == 0:
        return 1.0
    return float(stats.binomtest(only_first, only_first + only_second, 0.5).pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for their number, in the given order.

    Holm 1979, Scandinavian Journal of Statistics 6(2), step-down: rejecting those at most α keeps
    the chance of any false rejection at most α.

    Raises:
        ValueError: If one is outside [0, 1].
    """
    raw = np.array(p_values, dtype=np.float64)
    if not ((raw >= 0) & (raw <= 1)).all():
        raise ValueError(f"found p-values {list(p_values)}; expected each in [0, 1]")
    order = np.argsort(raw, kind="stable")
    factors = np.arange(len(raw), 0, -1)
    adjusted = np.empty(len(raw))
    adjusted[order] = np.minimum(1, np.maximum.accumulate(factors * raw[order]))
    return [float(value) for value in adjusted]


def equivalence_p(replicates: FloatArray, margin: float) -> float:
    """Return the p-value of a difference beyond a margin, by two one-sided bootstrap tests.

    Schuirmann 1987 (J. Pharmacokinetics and Biopharmaceutics 15(6)): the larger p-value of "at most
    -margin" and "at least margin"; a small one shows that the models are equivalent up to the
    margin. One is added to each count and to the number of resamples.

    Args:
        replicates: The difference in each resample, (B,); NaN, where undefined, is left out.
        margin: Greatest difference that does not matter, > 0, in the same unit.

    Raises:
        ValueError: If the margin is not positive, or no replicate is defined.
    """
    if not margin > 0:
        raise ValueError(f"found margin {margin:g}; expected a positive one")
    defined = replicates[~np.isnan(replicates)]
    if not len(defined):
        raise ValueError("the statistic is undefined in every resample")
    most = max((defined <= -margin).sum(), (defined >= margin).sum())
    return float(most + 1) / (len(defined) + 1)
