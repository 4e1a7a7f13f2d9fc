"""Find the difference that a comparison can show, and the images or seeds that it needs.

Each design answers for the tests that decide a comparison of its kind, at 5 % and without an
adjustment for several evaluations. Differences are in percentage points.
"""

import bisect
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from scipy import optimize, stats
from scipy.stats import qmc

from rsa_eval.statistics.intervals import LEVEL, FloatArray

POWER = 0.8
"""Chance to show a difference."""
MOST_SEEDS = 1000
"""Greatest number of seeds that is considered."""

_TAIL = (1 - LEVEL) / 2
_NEGLIGIBLE = 1e-10
_MOST_EXACT = 10**6  # images
_LOG_EXPERIMENTS, _LOG_REPLICATES = 9, 11
_EXPERIMENTS_AT_ONCE = 64


@dataclass(frozen=True)
class Needed:
    """Sizes that a comparison can show, and that would settle it."""

    smallest_difference: float | None
    """True difference that is shown with a power of 80 %; None if none up to 100 is."""
    images: int | None
    """Test images with which the difference found would be shown; None if seeds alone are enough,
    or if it is 0."""
    seeds: int | None
    """Seeds of each model with which it would be shown, on these images or, if ``images`` is given,
    on so many; None for single networks, or if no number of seeds is enough."""


class Design(Protocol):
    """The facts that decide the power of a comparison."""

    def needed(self, difference: float) -> Needed:
        """Return the difference that is shown, and what the one found needs.

        Args:
            difference: The difference found, of either sign, taken for the true one.
        """


@dataclass(frozen=True)
class PairDesign:
    """One network against one, by McNemar's exact test."""

    num_images: int
    discordance: float
    """Share of the images that one network alone gets right; differences above it raise it."""

    def power(self, difference: float, num_images: int) -> float:
        """Return the chance that a true difference is shown, exactly.

        The number of discordant images is binomial, and so is, given it, the number of those that
        the better network gets right.
        """
        share = max(self.discordance, abs(difference) / 100)
        if share == 0:
            return 0.0
        first, last = stats.binom.ppf([_NEGLIGIBLE, 1 - _NEGLIGIBLE], num_images, share)
        totals = np.arange(first, last + 1)
        # The test is two-sided and symmetric: it rejects from this number on, and its mirror image.
        rejects = stats.binom.isf(_TAIL, totals, 0.5) + 1
        better = (share + abs(difference) / 100) / (2 * share)
        shown = stats.binom.sf(rejects - 1, totals, better)
        shown += stats.binom.cdf(totals - rejects, totals, better)
        return float(stats.binom.pmf(totals, num_images, share) @ shown)

    def needed(self, difference: float) -> Needed:
        """Solve the power for the difference, and for the images."""
        smallest = None
        if self.power(100.0, self.num_images) >= POWER:
            smallest = float(
                optimize.brentq(lambda d: self.power(d, self.num_images) - POWER, 0.0, 100.0)
            )
        return Needed(smallest, self._images_for(abs(difference) / 100), None)

    def _images_for(self, share: float) -> int | None:
        """Return the images that show a difference, as a share; many by the normal test."""
        if share == 0:
            return None
        variance = max(self.discordance, share) - share**2
        many = MeanDesign(1, math.sqrt(variance)).needed(share).images
        if many is not None and many > _MOST_EXACT:
            return many
        return _smallest_number(lambda n: self.power(100 * share, n) >= POWER, 1)


@dataclass(frozen=True)
class MeanDesign:
    """A statistic over images with a normal error, whose variance shrinks as 1 / images."""

    num_images: int
    standard_error: float

    def needed(self, difference: float) -> Needed:
        """Return the normal test's; the chance of the wrong sign is left out, as it is nil."""
        smallest = self.standard_error * float(stats.norm.isf(_TAIL) + stats.norm.ppf(POWER))
        images = None
        if difference != 0:
            images = max(1, math.ceil(self.num_images * (smallest / difference) ** 2))
        return Needed(smallest if smallest <= 100 else None, images, None)


@dataclass(frozen=True)
class SeedDesign:
    """Several seeds of both methods; variances are in squared points.

    A trial is its method's mean plus an error of its seed, one of the images in this trial alone,
    and one of the images that all trials share. A single entry in the tuples stands for differences
    between equal seeds of both methods.
    """

    num_seeds: tuple[int, ...]
    seed_variances: tuple[float, ...]
    image_noise: tuple[float, ...]
    """Variance of one trial over images, beside what all trials share."""
    common_variance: float
    """Variance over images of the difference, that more seeds do not shrink."""
    num_images: int | None
    """None if no answers by image are kept: a t test over seeds decides alone then."""

    def needed(self, difference: float) -> Needed:
        """Search the seeds on these images, or else seeds and images together.

        If no number of seeds is enough, seeds are taken that leave half of the error to the images.
        """
        if not any(self.seed_variances) and self.num_images is None:
            return Needed(None, None, None)
        smallest = self.smallest_difference()
        shown = smallest if smallest <= 100 else None
        if difference == 0:
            return Needed(shown, None, None)
        seeds = self._seeds_for(abs(difference))
        if seeds is not None or self.num_images is None:
            return Needed(shown, None, seeds)
        endless = self._with_images(math.inf)
        seeds = endless._seeds_for(abs(difference) / math.sqrt(2))
        if seeds is None:
            return Needed(shown, None, None)
        planned = self._with_seeds(seeds)
        images = _smallest_number(
            lambda n: planned._with_images(n).smallest_difference() <= abs(difference),
            self.num_images,
        )
        return Needed(shown, images, seeds)

    def smallest_difference(self) -> float:
        """Return the true difference that is shown with a power of 80 %.

        By simulated experiments: each has the trials' variances that chance gives it, and with them
        the smallest difference that both tests call shown, Welch's (or the paired) and the draws of
        ``seeds.hierarchical_differences``.
        """
        degrees = np.array(self.num_seeds) - 1.0
        per_seed = 1 / np.array(self.num_seeds)
        noise, own = np.array(self.image_noise), np.array(self.seed_variances)
        over_images = self.common_variance + float(noise @ per_seed)
        experiments = _points(_LOG_EXPERIMENTS, 1 + len(degrees))
        scatter = math.sqrt(over_images + float(own @ per_seed))
        errors = scatter * stats.norm.ppf(experiments[:, 0])
        # The trials' variances of each experiment, (J, sides).
        found = (own + noise) * stats.chi2.ppf(experiments[:, 1:], degrees) / degrees
        bounds = _t_bounds(found * per_seed, degrees)
        if self.num_images is not None:
            drawn = _points(_LOG_REPLICATES, 1 + 2 * len(degrees))
            normal = stats.norm.ppf(drawn[:, : 1 + len(degrees)])
            likely = degrees / stats.chi2.ppf(drawn[:, 1 + len(degrees) :], degrees)
            for start in range(0, len(found), _EXPERIMENTS_AT_ONCE):
                rows = slice(start, start + _EXPERIMENTS_AT_ONCE)
                draws = math.sqrt(over_images) * normal[:, 0]
                for side, share in enumerate(per_seed):
                    variance = found[rows, side, None] * likely[:, side] - noise[side]
                    reach = np.sqrt(np.maximum(0, variance) * share)
                    draws = draws + reach * normal[:, 1 + side]
                bounds[rows] = np.maximum(bounds[rows], np.quantile(abs(draws), LEVEL, axis=-1))
        return max(0.0, float(np.quantile(bounds - errors, POWER)))

    def _seeds_for(self, difference: float) -> int | None:
        """Return the fewest seeds of each method that show a difference, at least 2."""

        def suffice(seeds: int) -> bool:
            return self._with_seeds(seeds).smallest_difference() <= difference

        return _smallest_number(suffice, 2, MOST_SEEDS)

    def _with_seeds(self, seeds: int) -> "SeedDesign":
        return replace(self, num_seeds=(seeds,) * len(self.num_seeds))

    def _with_images(self, num_images: float) -> "SeedDesign":
        assert self.num_images is not None
        share = self.num_images / num_images
        return replace(
            self,
            image_noise=tuple(share * noise for noise in self.image_noise),
            common_variance=share * self.common_variance,
        )


def _t_bounds(variances: FloatArray, degrees: FloatArray) -> FloatArray:
    """Return the smallest difference that a t test calls shown, (J,).

    Args:
        variances: Of each side's mean, (J, sides); Welch's test for two sides.
        degrees: Degrees of freedom of each side.
    """
    total = variances.sum(axis=1)
    spread = (variances**2 / degrees).sum(axis=1)
    num_degrees = np.full(len(total), degrees.sum())
    np.divide(total**2, spread, out=num_degrees, where=spread > 0)
    bounds: FloatArray = stats.t.isf(_TAIL, num_degrees) * np.sqrt(total)
    return bounds


def _points(log_number: int, dimensions: int) -> FloatArray:
    """Return 2^log_number evenly spread points inside the unit cube, a row each."""
    found = qmc.Sobol(dimensions, scramble=False).random_base2(log_number)
    points: FloatArray = found + 0.5 / len(found)
    return points


def _smallest_number(suffices: Callable[[int], bool], least: int, most: int = 2**40) -> int | None:
    """Return the smallest number of ``least`` to ``most`` that suffices, as all larger ones do."""
    upper = least
    while not suffices(upper):
        if upper == most:
            return None
        least, upper = upper + 1, min(2 * upper, most)
    numbers = range(least, upper + 1)
    return numbers[bisect.bisect_left(numbers, True, key=suffices)]
