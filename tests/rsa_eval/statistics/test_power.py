import itertools
import math

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.power import NormalIndPower, TTestIndPower, TTestPower

from rsa_eval.statistics.bootstrap import bootstrap_p
from rsa_eval.statistics.intervals import percentile_interval
from rsa_eval.statistics.paired import mcnemar
from rsa_eval.statistics.power import MeanDesign, PairDesign, SeedDesign
from rsa_eval.statistics.seeds import hierarchical_differences, paired_t, welch


def seeds_alone(*num_seeds: int, variance: float = 1.0) -> SeedDesign:
    """Methods whose seeds vary, without answers by image."""
    sides = len(num_seeds)
    return SeedDesign(num_seeds, (variance,) * sides, (0.0,) * sides, 0.0, None)


@pytest.mark.parametrize(("discordance", "difference"), [(0.3, 20.0), (0.1, 10.0), (0.6, -30.0)])
def test_the_power_of_a_pair_is_that_of_all_outcomes(discordance: float, difference: float) -> None:
    """Twenty images: McNemar's p of each possible table, weighted by its chance."""
    found = PairDesign(20, discordance).power(difference, 20)
    won = (discordance + difference / 100) / 2
    expected = 0.0
    for first, second in itertools.product(range(21), repeat=2):
        if first + second <= 20 and mcnemar(first, second) <= 0.05:
            chances = [won, discordance - won, 1 - discordance]
            table = [first, second, 20 - first - second]
            expected += float(stats.multinomial.pmf(table, 20, chances))
    assert found == pytest.approx(expected, abs=1e-8)


def test_a_pair_shows_the_difference_four_times_in_five() -> None:
    """Four thousand simulated pairs; the normal test's difference is a little smaller."""
    design = PairDesign(400, 0.2)
    smallest = design.needed(0.0).smallest_difference
    assert smallest is not None
    won = (0.2 + smallest / 100) / 2
    tables = np.random.default_rng(0).multinomial(400, [won, 0.2 - won, 0.8], size=4000)
    shown = [mcnemar(int(first), int(second)) <= 0.05 for first, second, _ in tables]
    assert np.mean(shown) == pytest.approx(0.8, abs=0.02)
    normal = MeanDesign(400, 100 * math.sqrt(0.2 / 400)).needed(0.0).smallest_difference
    assert normal is not None
    assert normal < smallest < 1.1 * normal


def test_networks_that_agree_on_all_images() -> None:
    """A difference needs six images that one network alone gets right: eight are enough to plan."""
    needed = PairDesign(1000, 0.0).needed(0.0)
    assert needed.smallest_difference == pytest.approx(0.79, abs=0.01)
    assert needed.images is None
    assert PairDesign(5, 0.5).needed(20.0).smallest_difference is None
    assert PairDesign(1000, 0.0).power(0.0, 1000) == 0


@pytest.mark.parametrize(("discordance", "difference"), [(0.2, 2.0), (0.0, 1.0), (0.9, -60.0)])
def test_as_many_images_make_the_difference_of_a_pair_detectable(
    discordance: float, difference: float
) -> None:
    """Fewer by a tenth do not; by the normal test hardly fewer would."""
    design = PairDesign(100, discordance)
    images = design.needed(difference).images
    assert images is not None
    assert design.power(difference, images) >= 0.8 > design.power(difference, int(0.9 * images))


def test_many_images_are_counted_by_the_normal_test() -> None:
    """Beyond a million; just below it the exact number is within a hundredth."""
    for difference in (0.1, 0.13):
        images = PairDesign(1000, 0.2).needed(difference).images
        normal = MeanDesign(1000, 100 * math.sqrt(0.2 / 1000)).needed(difference).images
        assert images == pytest.approx(normal, rel=0.01)


def test_a_mean_is_normal() -> None:
    """1.96 + 0.84 standard errors; one image fewer than needed does not suffice."""
    needed = MeanDesign(3000, 1.1).needed(-0.7)
    expected = NormalIndPower(ddof=0).solve_power(nobs1=1, alpha=0.05, power=0.8, ratio=0)
    # statsmodels adds the chance of the wrong sign, a millionth.
    assert needed.smallest_difference == pytest.approx(1.1 * expected, rel=1e-5)
    assert needed.images is not None
    errors = [1.1 * math.sqrt(3000 / number) for number in (needed.images, needed.images - 1)]
    assert errors[0] * expected <= 0.7 < errors[1] * expected
    assert MeanDesign(100, 1.0).needed(0.0).images is None
    assert MeanDesign(100, 50.0).needed(1.0).smallest_difference is None


@pytest.mark.parametrize("num_seeds", [2, 3, 5, 10, 30])
def test_without_images_it_is_the_effect_of_statsmodels(num_seeds: int) -> None:
    """Of pairs; of two sides from ten seeds on, as Welch's test has fewer degrees of freedom."""
    pairs = TTestPower().solve_power(nobs=num_seeds, alpha=0.05, power=0.8)
    assert seeds_alone(num_seeds).smallest_difference() == pytest.approx(pairs, rel=0.02)
    two = TTestIndPower().solve_power(nobs1=num_seeds, alpha=0.05, power=0.8)
    found = seeds_alone(num_seeds, num_seeds).smallest_difference()
    assert found == pytest.approx(two, rel=0.02) if num_seeds >= 10 else found > two


@pytest.mark.parametrize("num_sides", [1, 2])
@pytest.mark.parametrize(
    ("num_seeds", "noise", "common"), [(2, 0.0, 0.0), (3, 0.0, 0.0), (3, 0.5, 0.3), (5, 1.0, 0.1)]
)
def test_the_verdict_shows_the_difference_four_times_in_five(
    num_sides: int, num_seeds: int, noise: float, common: float
) -> None:
    """Six hundred experiments, each judged by the t test and by the draws over seeds and images."""
    design = SeedDesign(
        (num_seeds,) * num_sides, (1.0,) * num_sides, (noise,) * num_sides, common, 1000
    )
    rng = np.random.default_rng([num_sides, num_seeds])
    smallest, shown = design.smallest_difference(), 0
    for _ in range(600):
        trials = rng.normal(size=(2, num_seeds)) * math.sqrt(1 + noise)
        trials[0] += smallest + rng.normal() * math.sqrt(common)
        resamples = trials[:, None] + rng.normal(size=(2, 1000, num_seeds)) * math.sqrt(noise)
        resamples[0] += rng.normal(size=(1000, 1)) * math.sqrt(common)
        if num_sides == 1:
            trials[1], resamples[1] = 0.0, 0.0
        test = (paired_t if num_sides == 1 else welch)(*trials.tolist())
        drawn = hierarchical_differences(
            *resamples, is_paired=num_sides == 1, seed=int(rng.integers(2**30))
        )
        interval = percentile_interval(drawn, 1000)
        is_significant = max(test.p, bootstrap_p(drawn)) <= 0.05
        shown += is_significant and interval.excludes(0) and test.interval.excludes(0)
    assert shown / 600 == pytest.approx(0.785, abs=0.05)


@pytest.mark.parametrize("num_images", [None, 500])
def test_as_many_seeds_make_the_difference_detectable(num_images: int | None) -> None:
    """As a literal search finds."""
    design = SeedDesign((3, 3), (0.8, 1.1), (0.2, 0.1), 0.02, num_images)
    found = design.needed(-1.0)
    literal = next(
        number
        for number in range(2, 100)
        if SeedDesign(
            (number, number), (0.8, 1.1), (0.2, 0.1), 0.02, num_images
        ).smallest_difference()
        <= 1.0
    )
    assert (found.seeds, found.images) == (literal, None)
    assert literal > 3


def test_seeds_of_pairs_are_those_of_statsmodels() -> None:
    """Rounded up, with the degrees of freedom of pairs."""
    for difference in (0.5, 0.95, 1.2):
        expected = TTestPower().solve_power(effect_size=difference, alpha=0.05, power=0.8)
        assert seeds_alone(3).needed(difference).seeds == math.ceil(expected)


def test_images_can_limit_seeds() -> None:
    """Then both are named; with so many of both, and with no fewer images, the difference shows."""
    design = SeedDesign((5, 5), (1.0, 1.0), (0.3, 0.3), 1.5, 1000)
    needed = design.needed(1.0)
    assert needed.seeds is not None
    assert needed.images is not None

    def smallest(images: float) -> float:
        share = 1000 / images
        return SeedDesign(
            (needed.seeds or 0,) * 2, (1.0, 1.0), (0.3 * share,) * 2, 1.5 * share, 1000
        ).smallest_difference()

    assert smallest(needed.images) <= 1.0 < smallest(needed.images - 1)


def test_what_nothing_can_show() -> None:
    """No difference, trials without spread, and one so small that a thousand seeds are too few."""
    assert seeds_alone(3, 3).needed(0.0).seeds is None
    assert seeds_alone(3, 3, variance=0.0).needed(1.0).smallest_difference is None
    assert seeds_alone(3, 3).needed(0.01).seeds is None
    beyond = SeedDesign((3, 3), (1.0, 1.0), (0.0, 0.0), 1.0, 1000).needed(0.01)
    assert (beyond.seeds, beyond.images) == (None, None)
    assert seeds_alone(2, 2, variance=200.0).needed(5.0).smallest_difference is None
