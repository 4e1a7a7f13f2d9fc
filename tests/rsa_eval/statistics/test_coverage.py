"""Simulate experiments: intervals cover as often as they say, tests reject as seldom.

The bounds leave a nominal 95 % three Monte Carlo standard errors of 2,000 experiments.
"""

from collections.abc import Iterator
from functools import cache

import numpy as np
import pytest
from scipy.stats import norm

from rsa_eval.statistics.average_precision import ap_replicates
from rsa_eval.statistics.bootstrap import (
    bootstrap_p,
    class_mean_replicates,
    mean_replicates,
    resampled_counts,
)
from rsa_eval.statistics.intervals import (
    FloatArray,
    Interval,
    percentile_interval,
    t_interval,
    wilson,
)
from rsa_eval.statistics.paired import equivalence_p, mcnemar
from rsa_eval.statistics.seeds import hierarchical_differences, paired_t, welch

NUM_EXPERIMENTS, NUM_RESAMPLES = 2000, 700
SIZES = pytest.mark.parametrize("num_images", [50, 1000])


def covered(intervals: list[Interval], truth: float) -> float:
    """Return the percentage of intervals that hold the truth."""
    assert len(intervals) == NUM_EXPERIMENTS
    return 100 * float(np.mean([not interval.excludes(truth) for interval in intervals]))


def rejected(p_values: list[float]) -> float:
    """Return the percentage of p-values that reject at 5 %."""
    assert len(p_values) == NUM_EXPERIMENTS
    return 100 * float(np.mean([p <= 0.05 for p in p_values]))


def hits(
    rng: np.random.Generator, num_images: int, accuracies: list[float], correlation: float = 0.5
) -> FloatArray:
    """Draw trials that find the same images hard, by a probit model, in percent (N, M)."""
    difficulty = rng.normal(size=(num_images, 1))
    noise = rng.normal(size=(num_images, len(accuracies)))
    latent = correlation**0.5 * difficulty + (1 - correlation) ** 0.5 * noise
    return 100.0 * (latent < norm.ppf(accuracies))


@SIZES
def test_wilson(num_images: int) -> None:
    """Accuracies of 60 to 80 %."""
    rng = np.random.default_rng(0)
    of_count = cache(wilson)
    accuracies = rng.uniform(0.6, 0.8, NUM_EXPERIMENTS)
    counts = rng.binomial(num_images, accuracies)
    intervals = [of_count(int(count), num_images) for count in counts]
    pairs = zip(intervals, accuracies, strict=True)
    share = np.mean([not interval.excludes(100 * accuracy) for interval, accuracy in pairs])
    assert 93.5 <= 100 * share <= 96.5


@pytest.mark.parametrize("num_trials", [2, 5, 50, 1000])
def test_student(num_trials: int) -> None:
    """Trials that vary by 0.6 points."""
    trials = np.random.default_rng(0).normal(70, 0.6, size=(NUM_EXPERIMENTS, num_trials))
    intervals = [interval for row in trials if (interval := t_interval(row.tolist()))]
    assert 93.5 <= covered(intervals, 70) <= 96.5


@SIZES
def test_a_difference_of_accuracies(num_images: int) -> None:
    """Two models of 70 and 75 %, whose interval has pseudo-images."""
    rng = np.random.default_rng(1)
    intervals = []
    for seed in range(NUM_EXPERIMENTS):
        values = hits(rng, num_images, [0.7, 0.75])
        replicates = np.subtract(*mean_replicates(values, NUM_RESAMPLES, seed, pseudo=0.5).T)
        intervals.append(percentile_interval(replicates, num_images))
    assert 93.5 <= covered(intervals, -5) <= 96.5


@SIZES
def test_paired_models_of_equal_accuracy(num_images: int) -> None:
    """The interval covers 0; neither test rejects too often, and the exact one never does."""
    rng = np.random.default_rng(2)
    intervals, bootstrap, exact = [], [], []
    for seed in range(NUM_EXPERIMENTS):
        values = hits(rng, num_images, [0.7, 0.7])
        first, second = values.T > 0
        exact.append(mcnemar(int((first & ~second).sum()), int((second & ~first).sum())))
        replicates = np.subtract(*mean_replicates(values, NUM_RESAMPLES, seed, pseudo=0.5).T)
        intervals.append(percentile_interval(replicates, num_images))
        bootstrap.append(bootstrap_p(replicates))
    assert 93.5 <= covered(intervals, 0) <= 96.5
    assert rejected(bootstrap) <= 6.5
    assert rejected(exact) <= 5


@pytest.mark.parametrize(("num_images", "margin"), [(50, 15), (1000, 4)])
def test_equivalence_at_its_margin(num_images: int, margin: float) -> None:
    """Models that differ by the margin are seldom called equivalent."""
    rng = np.random.default_rng(3)
    p_values = []
    for seed in range(NUM_EXPERIMENTS):
        values = hits(rng, num_images, [0.65, 0.65 + margin / 100])
        replicates = np.subtract(*mean_replicates(values, NUM_RESAMPLES, seed, pseudo=0.5).T)
        p_values.append(equivalence_p(replicates, margin))
    assert 2 <= rejected(p_values) <= 6.5


@SIZES
def test_a_mean_over_draws(num_images: int) -> None:
    """Five models of 70 %, averaged image by image, with pseudo-images."""
    rng = np.random.default_rng(4)
    intervals = []
    for seed in range(NUM_EXPERIMENTS):
        values = hits(rng, num_images, [0.7] * 5).mean(axis=1, keepdims=True)
        replicates = mean_replicates(values, NUM_RESAMPLES, seed, pseudo=2)
        intervals.append(percentile_interval(replicates[:, 0], num_images))
    assert 93.5 <= covered(intervals, 70) <= 96.5


@pytest.mark.parametrize(("num_images", "is_balanced"), [(50, False), (50, True), (1000, False)])
def test_a_mean_over_classes(num_images: int, is_balanced: bool) -> None:
    """Ten classes of 50 to 90 %, with equally many images or not."""
    rng = np.random.default_rng(5)
    accuracies = np.linspace(0.5, 0.9, 10)
    intervals = []
    for seed in range(NUM_EXPERIMENTS):
        labels = np.arange(num_images) % 10 if is_balanced else rng.integers(10, size=num_images)
        values = 100.0 * (rng.random((num_images, 1)) < accuracies[labels, None])
        # A quantile of fewer resamples is too narrow by another 0.1 %.
        replicates = class_mean_replicates(values, labels, 1000, seed)
        intervals.append(percentile_interval(replicates[:, 0], num_images))
    assert 93.5 <= covered(intervals, 70) <= 96.5


def _resamples(num_images: int, num_resamples: int, num_shared: int) -> Iterator[FloatArray]:
    """Yield counts for each experiment, drawn for some of them at once to save time."""
    for start in range(0, NUM_EXPERIMENTS, num_shared):
        counts = np.concatenate(list(resampled_counts(num_images, num_resamples, start)))
        yield from [counts] * num_shared


@pytest.mark.parametrize(("num_images", "prevalence"), [(50, 0.3), (1000, 0.1)])
def test_mean_average_precision(num_images: int, prevalence: float) -> None:
    """Of two classes by two models: each one's interval, and that of the difference.

    One model's covers the mean over test sets of this size: average precision is the higher the
    fewer its positives, so that of endless images is a point or more below.
    """
    rng = np.random.default_rng(6)
    once, values = np.ones((1, num_images), np.int64), []
    intervals, differences = [], []
    for counts in _resamples(num_images, 300, 100):
        positive = rng.random((num_images, 2)) < prevalence
        first = rng.normal(size=positive.shape) + 1.5 * positive
        second = 0.7 * first + 0.51**0.5 * rng.normal(size=positive.shape) + 0.45 * positive
        replicates = [
            np.mean(
                [
                    ap_replicates(scores[:, one], positive[:, one], drawn, eleven_points=False)
                    for one in range(2)
                ],
                axis=0,
            )
            for scores, drawn in ((first, counts), (second, counts), (first, once))
        ]
        intervals.append(percentile_interval(replicates[0], num_images))
        differences.append(percentile_interval(replicates[0] - replicates[1], num_images))
        values.append(replicates[2][0])
    assert 93.5 <= covered(intervals, float(np.mean(values))) <= 96.5
    assert 93.5 <= covered(differences, 0) <= 96.5


@pytest.mark.parametrize("num_trials", [(5, 5), (3, 10)])
def test_trials_of_equal_methods(num_trials: tuple[int, int]) -> None:
    """Welch's and the paired test, where one method varies twice as much over seeds."""
    rng = np.random.default_rng(7)
    tests = [
        [welch(*trials), paired_t(trials[0][:3], trials[1][:3])]
        for trials in (
            [rng.normal(70, 0.5, num_trials[0]).tolist(), rng.normal(70, 1, num_trials[1]).tolist()]
            for _ in range(NUM_EXPERIMENTS)
        )
    ]
    for found in zip(*tests, strict=True):
        assert 93.5 <= covered([test.interval for test in found], 0) <= 96.5
        assert rejected([test.p for test in found]) <= 6.5


@SIZES
@pytest.mark.parametrize("is_paired", [False, True])
@pytest.mark.parametrize("spread", [0.5, 2.0])
def test_seeds_and_images(num_images: int, is_paired: bool, spread: float) -> None:
    """Five trials of two methods of 70 %: images, seeds and their noise are crossed.

    There is no upper bound: ``hierarchical_differences`` states why it covers more.
    """
    rng = np.random.default_rng(8)
    intervals, p_values = [], []
    points = 100 * norm.pdf(norm.ppf(0.7))  # of accuracy per unit of threshold
    for counts in _resamples(num_images, 300, 50):
        noise = rng.normal(size=(num_images, 13)) * np.sqrt([0.25, *[0.125] * 2, *[0.625] * 10])
        of_method = np.repeat(noise[:, 1:3], 5, axis=1)
        of_seed = rng.normal(size=15) * spread / points
        shift = of_seed[:10] + is_paired * np.tile(of_seed[10:], 2)
        latent = noise[:, :1] + of_method + noise[:, 3:]
        values = 100.0 * (latent < norm.ppf(0.7) + shift)
        first, second = np.hsplit(counts @ values / num_images, 2)
        replicates = hierarchical_differences(
            first, second, is_paired=is_paired, seed=len(intervals)
        )
        intervals.append(percentile_interval(replicates, num_images))
        p_values.append(bootstrap_p(replicates))
    assert covered(intervals, 0) >= 93.5
    assert rejected(p_values) <= 6.5
