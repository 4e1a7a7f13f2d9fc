import math

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.power import NormalIndPower, TTestIndPower, TTestPower

from rsa_eval.statistics.power import images_needed, seeds_needed, smallest_difference


@pytest.mark.parametrize("num_trials", [2, 3, 5, 30])
@pytest.mark.parametrize(("level", "power"), [(0.95, 0.8), (0.9, 0.5), (0.9, 0.7)])
def test_it_is_the_effect_of_statsmodels(num_trials: int, level: float, power: float) -> None:
    """Of one sample, and of two with equally many trials; in units of one trial's deviation."""
    paired = TTestPower().power(
        smallest_difference(1 / num_trials**0.5, num_trials - 1, level, power),
        num_trials,
        1 - level,
    )
    assert paired == pytest.approx(power, abs=1e-6)
    two = TTestIndPower().power(
        smallest_difference((2 / num_trials) ** 0.5, 2 * (num_trials - 1), level, power),
        num_trials,
        1 - level,
    )
    assert two == pytest.approx(power, abs=1e-6)


@pytest.mark.parametrize("degrees_of_freedom", [1, 2, 4])
def test_high_power_of_few_trials_is_found(degrees_of_freedom: int) -> None:
    """Where statsmodels returns NaN, a million simulated tests reject as often."""
    found = smallest_difference(1.0, degrees_of_freedom, 0.99, 0.95)
    rng = np.random.default_rng(0)
    errors = np.sqrt(rng.chisquare(degrees_of_freedom, 1_000_000) / degrees_of_freedom)
    statistic = (found + rng.normal(size=1_000_000)) / errors
    rejected = abs(statistic) > stats.t.isf(0.005, degrees_of_freedom)
    assert rejected.mean() == pytest.approx(0.95, abs=0.001)


def test_without_end_of_trials_it_is_normal() -> None:
    """1.96 + 0.84 standard errors; as many degrees of freedom come close."""
    found = smallest_difference(2.0)
    expected = NormalIndPower(ddof=0).solve_power(nobs1=1, alpha=0.05, power=0.8, ratio=0)
    assert found == pytest.approx(2 * expected)
    assert smallest_difference(2.0, 5000) == pytest.approx(found, rel=1e-3)


def test_no_error_detects_everything() -> None:
    """And impossible arguments are refused."""
    assert smallest_difference(0.0, 3) == 0
    for arguments in [(-1.0,), (1.0, 0.0), (1.0, 3.0, 1.0), (1.0, 3.0, 0.95, 0.04)]:
        with pytest.raises(ValueError, match="0 < 1 - level < power < 1"):
            smallest_difference(*arguments)


def test_as_many_images_make_the_difference_detectable() -> None:
    """One less does not."""
    needed = images_needed(-0.7, 1.1, 3000)
    assert needed is not None
    errors = [1.1 * math.sqrt(3000 / number) for number in (needed, needed - 1)]
    detected = [smallest_difference(error) for error in errors]
    assert detected[0] <= 0.7 < detected[1]


def test_images_for_no_difference_and_no_error() -> None:
    """None detect nothing; without an error one suffices."""
    assert images_needed(0.0, 1.0, 100) is None
    assert images_needed(1.0, 0.0, 100) == 1


@pytest.mark.parametrize("image_variance", [0.0, 0.05])
def test_as_many_seeds_make_the_difference_detectable(image_variance: float) -> None:
    """As a literal search finds."""
    found = seeds_needed(-1.0, 0.8, 1.1, image_variance)
    literal = next(
        number
        for number in range(2, 100)
        if smallest_difference((1.9 / number + image_variance) ** 0.5, 2 * (number - 1)) <= 1.0
    )
    assert found == literal > 2


def test_seeds_are_those_of_statsmodels_without_images() -> None:
    """Rounded up."""
    expected = TTestIndPower().solve_power(effect_size=0.8, alpha=0.05, power=0.8)
    assert seeds_needed(0.8, 1.0, 1.0, 0.0) == math.ceil(expected)


def test_images_can_limit_seeds() -> None:
    """No number of seeds undercuts their variance; two suffice for a large difference."""
    assert seeds_needed(1.0, 0.5, 0.5, 1.0) is None
    assert seeds_needed(0.0, 0.5, 0.5, 0.0) is None
    assert seeds_needed(1.0, 0.5, 0.5, 0.0, most=5) is None
    assert seeds_needed(100.0, 0.5, 0.5, 1.0) == 2
