import math

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.proportion import proportion_confint
from statsmodels.stats.weightstats import DescrStatsW

from rsa_eval.statistics.intervals import Interval, percentile_interval, t_interval, wilson


def test_an_interval_excludes_what_is_strictly_outside() -> None:
    """Its bounds belong to it."""
    interval = Interval(-1.0, 3.0)
    assert interval.half_width == 2
    assert [interval.excludes(value) for value in (-1.1, -1.0, 0.0, 3.0, 3.1)] == [
        *(True, False, False, False, True)
    ]


@pytest.mark.parametrize("level", [0.8, 0.95])
@pytest.mark.parametrize(("num_right", "total"), [(37, 50), (0, 50), (50, 50), (1, 1), (7, 10_000)])
def test_wilson_is_that_of_statsmodels(num_right: int, total: int, level: float) -> None:
    """In percent, where none or all are right too."""
    found = wilson(num_right, total, level)
    expected = proportion_confint(num_right, total, alpha=1 - level, method="wilson")
    assert [found.low, found.high] == pytest.approx([100 * bound for bound in expected], abs=1e-9)
    assert found.half_width > 0


@pytest.mark.parametrize(("num_right", "total"), [(0, 0), (3, 2), (-1, 2)])
def test_wilson_refuses_impossible_counts(num_right: int, total: int) -> None:
    """No images, or more right ones than images."""
    with pytest.raises(ValueError, match=f"found {num_right} right of {total}"):
        wilson(num_right, total)


def test_student_is_that_of_statsmodels() -> None:
    """The mean of four trials, at another level too."""
    values = [70.1, 71.5, 69.9, 72.0]
    for level in (0.9, 0.95):
        found = t_interval(values, level)
        assert found is not None
        expected = DescrStatsW(values).tconfint_mean(alpha=1 - level)
        assert (found.low, found.high) == pytest.approx(expected)


def test_student_needs_two_trials() -> None:
    """One says nothing of the spread; equal ones have none."""
    assert t_interval([]) is None
    assert t_interval([70.0]) is None
    assert t_interval([70.0, 70.0]) == Interval(70.0, 70.0)


def test_the_expanded_interval_of_normal_replicates_is_students() -> None:
    """With the divisor n in their deviation, the quantiles reach to t times s / sqrt(n)."""
    n, s = 8, 3.0
    probabilities = (np.arange(200_000) + 0.5) / 200_000
    replicates = s * math.sqrt((n - 1) / n) / math.sqrt(n) * stats.norm.ppf(probabilities)
    found = percentile_interval(replicates, n)
    reach = stats.t.ppf(0.975, n - 1) * s / math.sqrt(n)
    assert (found.low, found.high) == pytest.approx((-reach, reach), rel=1e-3)


def test_many_clusters_give_the_plain_percentiles() -> None:
    """The expansion vanishes."""
    replicates = np.random.default_rng(0).normal(size=1000)
    found = percentile_interval(replicates, 10**7, 0.9)
    expected = np.quantile(replicates, [0.05, 0.95])
    assert (found.low, found.high) == pytest.approx(tuple(expected), abs=1e-4)


def test_one_cluster_gives_the_full_range_of_defined_replicates() -> None:
    """Student's t has no quantiles without degrees of freedom; NaN is left out."""
    replicates = np.array([3.0, np.nan, 1.0, 2.0])
    assert percentile_interval(replicates, 1) == Interval(1.0, 3.0)


def test_nothing_to_summarise_is_refused() -> None:
    """Neither replicates that are all undefined, nor no resampled unit."""
    with pytest.raises(ValueError, match="undefined in every resample"):
        percentile_interval(np.array([np.nan]), 5)
    with pytest.raises(ValueError, match="found 0 resampled units"):
        percentile_interval(np.array([1.0]), 0)
