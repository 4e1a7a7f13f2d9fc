"""Find the difference that a comparison can detect, and the images or seeds that it needs."""

import bisect
import math

from scipy import optimize, stats

from rsa_eval.statistics.intervals import LEVEL

POWER = 0.8
"""Chance to detect a difference, unless stated otherwise."""

# The statistic is negative with a chance of at most Φ(-6), 1e-9, which scipy may return as NaN.
_NO_OTHER_SIDE = 6


def smallest_difference(
    standard_error: float,
    degrees_of_freedom: float = math.inf,
    level: float = LEVEL,
    power: float = POWER,
) -> float:
    """Return the true difference that a two-sided t test detects with this power.

    The statistic of the test is noncentral t with noncentrality difference / standard error; with
    infinitely many degrees of freedom it is normal.

    Args:
        standard_error: Of the difference, >= 0.
        degrees_of_freedom: Of the standard error, > 0; infinite where many images determine it.
        level: One less the test's size, in (0, 1).
        power: Chance to reject, above the test's size 1 - level and below 1.

    Returns:
        In the unit of the standard error; 0 where that is 0.

    Raises:
        ValueError: If an argument is out of range.
    """
    if not (standard_error >= 0 and degrees_of_freedom > 0 and 0 < 1 - level < power < 1):
        raise ValueError(
            f"found standard error {standard_error:g}, {degrees_of_freedom:g} degrees of freedom, "
            f"level {level:g}, power {power:g}; expected at least 0, more than 0, and "
            "0 < 1 - level < power < 1"
        )
    if standard_error == 0:
        return 0.0

    def excess(noncentrality: float) -> float:
        return _power(noncentrality, degrees_of_freedom, level) - power

    highest = 4.0
    while excess(highest) < 0:
        highest *= 2
    return standard_error * float(optimize.brentq(excess, 0, highest, xtol=1e-10))


def images_needed(
    difference: float,
    standard_error: float,
    num_images: int,
    level: float = LEVEL,
    power: float = POWER,
) -> int | None:
    """Return the number of images that makes a difference detectable.

    The variance shrinks as 1 / N; the test is normal.

    Args:
        difference: True difference, of either sign.
        standard_error: Of the difference on ``num_images`` images, in the same unit.
        num_images: Images behind the standard error.
        level: As in ``smallest_difference``.
        power: As in ``smallest_difference``.

    Returns:
        At least 1; None for a difference of 0, which no number of images detects.

    Raises:
        ValueError: As ``smallest_difference``.
    """
    detected = smallest_difference(standard_error, level=level, power=power)
    if difference == 0:
        return None
    return max(1, math.ceil(num_images * (detected / difference) ** 2))


def seeds_needed(
    difference: float,
    seed_variance_first: float,
    seed_variance_second: float,
    image_variance: float,
    level: float = LEVEL,
    power: float = POWER,
    most: int = 1000,
) -> int | None:
    """Return the smallest number of seeds per method that makes a difference detectable.

    With S seeds each, the squared standard error is (v1 + v2) / S plus the variance that more seeds
    do not shrink; the test has 2 (S - 1) degrees of freedom.

    Args:
        difference: True difference, of either sign.
        seed_variance_first: Variance v1 of the first method over seeds, in squared units.
        seed_variance_second: Variance v2 of the second.
        image_variance: Variance of the difference by the choice of images.
        level: As in ``smallest_difference``.
        power: As in ``smallest_difference``.
        most: Greatest number to consider, at least 2.

    Returns:
        At least 2; None if ``most`` seeds do not suffice, as the images limit it then.

    Raises:
        ValueError: As ``smallest_difference``.
    """

    def suffices(num_seeds: int) -> bool:
        variance = (seed_variance_first + seed_variance_second) / num_seeds + image_variance
        degrees = 2 * (num_seeds - 1)
        return smallest_difference(math.sqrt(variance), degrees, level, power) <= abs(difference)

    if difference == 0 or not suffices(most):
        return None
    # More seeds never detect less, so the answers are sorted.
    numbers = range(2, most + 1)
    return numbers[bisect.bisect_left(numbers, True, key=suffices)]


def _power(noncentrality: float, degrees_of_freedom: float, level: float) -> float:
    """Return the chance that a two-sided test rejects."""
    tail = (1 - level) / 2
    if math.isinf(degrees_of_freedom):
        bound = stats.norm.isf(tail)
        return float(stats.norm.sf(bound - noncentrality) + stats.norm.cdf(-bound - noncentrality))
    bound = stats.t.isf(tail, degrees_of_freedom)
    above = float(stats.nct.sf(bound, degrees_of_freedom, noncentrality))
    if noncentrality > _NO_OTHER_SIDE:
        return above
    return above + float(stats.nct.cdf(-bound, degrees_of_freedom, noncentrality))
