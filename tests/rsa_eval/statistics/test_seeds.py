import warnings

import numpy as np
import pytest
from scipy import stats

from rsa_eval.statistics.intervals import Interval, t_interval
from rsa_eval.statistics.seeds import hierarchical_differences, paired_t, welch

FIRST = [71.2, 70.4, 72.9, 71.8]
SECOND = [69.5, 71.0, 68.8, 70.1]


@pytest.mark.parametrize("level", [0.9, 0.95])
@pytest.mark.parametrize("second", [SECOND, SECOND[:2], [70.0, 70.0, 70.1]])
def test_welch_is_that_of_scipy(second: list[float], level: float) -> None:
    """With other numbers of trials, and one method that has almost no spread."""
    found = welch(FIRST, second, level)
    expected = stats.ttest_ind(FIRST, second, equal_var=False)
    interval = expected.confidence_interval(level)
    assert found.p == pytest.approx(expected.pvalue)
    assert found.degrees_of_freedom == pytest.approx(expected.df)
    assert found.difference == pytest.approx(np.mean(FIRST) - np.mean(second))
    assert found.difference / found.standard_error == pytest.approx(expected.statistic)
    assert (found.interval.low, found.interval.high) == pytest.approx(tuple(interval))
    assert not found.is_paired


@pytest.mark.parametrize("level", [0.9, 0.95])
def test_pairs_are_those_of_scipy(level: float) -> None:
    """Student's test of the differences."""
    found = paired_t(FIRST, SECOND, level)
    expected = stats.ttest_rel(FIRST, SECOND)
    assert found.p == pytest.approx(expected.pvalue)
    assert found.degrees_of_freedom == expected.df == 3
    assert found.difference / found.standard_error == pytest.approx(expected.statistic)
    interval = expected.confidence_interval(level)
    assert (found.interval.low, found.interval.high) == pytest.approx(tuple(interval))
    assert found.is_paired


@pytest.mark.parametrize("test", [welch, paired_t])
def test_trials_without_spread(test: type[welch]) -> None:
    """Equal means have p = 1, others 0; the interval is a point; nothing warns."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        same, other = test([70.1, 70.1], [70.1, 70.1]), test([70.1, 70.1], [70.3, 70.3])
    assert (same.p, same.standard_error, same.interval) == (1.0, 0.0, Interval(0.0, 0.0))
    assert (other.p, other.standard_error) == (0.0, 0.0)
    assert other.interval == Interval(other.difference, other.difference)
    assert other.difference == pytest.approx(-0.2)


def test_rounding_is_no_spread() -> None:
    """Differences of one tenth, which are not equal in floating point."""
    assert paired_t([70.1, 71.1, 80.3], [70.0, 71.0, 80.2]).p == 0.0
    assert paired_t([0.1 + 0.2, 0.3], [0.3, 0.3]).p == 1.0


def test_numbers_of_trials_are_checked() -> None:
    """At least two each; pairs need equally many."""
    with pytest.raises(ValueError, match="found 1 trials; expected at least two"):
        welch(FIRST, [70.0])
    with pytest.raises(ValueError, match="found 4 and 3 trials"):
        paired_t(FIRST, SECOND[:3])


def test_a_single_trial_has_the_variation_of_images_alone() -> None:
    """The replicates are the differences of what came in, paired or not."""
    first, second = np.random.default_rng(0).normal(size=(2, 50, 1))
    for is_paired in (False, True):
        found = hierarchical_differences(first, second, is_paired=is_paired)
        np.testing.assert_allclose(found, (first - second)[:, 0])


def test_seeds_on_endless_images_have_students_interval() -> None:
    """Where images do not vary, the replicates' quantiles are its bounds."""
    trials = [69.0, 70.0, 71.2, 74.0]
    first = np.tile(trials, (200_000, 1))
    found = hierarchical_differences(first, np.full((200_000, 1), 60.0), is_paired=False)
    expected = t_interval(trials)
    assert expected is not None
    bounds = np.quantile(found, [0.025, 0.975]) + 60
    assert bounds == pytest.approx([expected.low, expected.high], abs=0.1)


def test_the_noise_of_images_is_not_counted_twice() -> None:
    """Forty trials that differ by it alone have the variation of images, not twice as much."""
    first = np.random.default_rng(0).normal(70, 1, size=(5000, 40))
    first += np.random.default_rng(1).normal(size=40)  # as these images happened to be
    found = hierarchical_differences(first, np.zeros((5000, 1)), is_paired=False)
    assert 1 <= found.var() / first.mean(axis=1).var() < 1.4


def test_pairs_cancel_what_seeds_share() -> None:
    """Methods that differ by a constant at each seed have no variation over seeds."""
    first = np.random.default_rng(0).normal(size=5) * 3 + np.zeros((500, 1))
    paired = hierarchical_differences(first, first - 2, is_paired=True)
    np.testing.assert_allclose(paired, 2)
    assert hierarchical_differences(first, first - 2, is_paired=False).std() > 1


def test_undefined_replicates_stay_undefined() -> None:
    """One resample without the metric leaves the others as they are."""
    first = np.random.default_rng(0).normal(70, 3, size=5) + np.zeros((40, 1))
    first[3] = np.nan
    found = hierarchical_differences(first, np.zeros((40, 2)), is_paired=False)
    assert np.flatnonzero(np.isnan(found)).tolist() == [3]
    assert np.isnan(hierarchical_differences(first * np.nan, first, is_paired=True)).all()


def test_shapes_are_checked() -> None:
    """Equally many resamples, and equally many paired seeds."""
    with pytest.raises(ValueError, match="expected \\(B, S\\)"):
        hierarchical_differences(np.zeros((3, 2)), np.zeros((4, 2)), is_paired=False)
    with pytest.raises(ValueError, match="pairs need S = T"):
        hierarchical_differences(np.zeros((3, 2)), np.zeros((3, 4)), is_paired=True)
    with pytest.raises(ValueError, match="a method without trials"):
        hierarchical_differences(np.zeros((3, 0)), np.zeros((3, 4)), is_paired=False)
