"""Estimate the difference of one metric between the trials of two models, and test it.

Two kinds of chance decide a number: the images it is measured on, and the seeds of training. With
several seeds of both models the interval covers both; with a single trained network of either it
covers the images alone, and other seeds may give another answer.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from rsa_eval.records.class_predictions import ClassPredictions
from rsa_eval.statistics.intervals import Interval
from rsa_eval.statistics.paired import mcnemar
from rsa_eval.statistics.power import Design, MeanDesign, PairDesign, SeedDesign
from rsa_eval.statistics.seeds import SeedTest, paired_t, welch
from rsa_eval.verdicts.resampling import Resampled, TrialScore, resample


@dataclass(frozen=True)
class Difference:
    """The first model's mean less the second's, in points."""

    first: tuple[float, ...]
    """The metric of each trial in percent."""
    second: tuple[float, ...]
    value: float
    interval: Interval
    """95 %; over images and, with several seeds of both models, over seeds."""
    p: float
    """Two-sided p-value of no difference."""
    test: str
    """Name of the test."""
    images: Interval | None
    """95 % over images alone; None without predictions."""
    seeds: SeedTest | None
    """t test over seeds alone; None unless both models have several."""
    num_images: int | None
    equivalence_p: float | None
    """p-value of a difference beyond the margin; None without a margin."""
    design: Design
    """The facts that decide the power of the comparison."""


def estimate_difference(
    first: Sequence[TrialScore],
    second: Sequence[TrialScore],
    metric: str,
    *,
    is_paired: bool = False,
    margin: float | None = None,
) -> Difference:
    """Compare the trials of two models, whose predictions, where kept, are of the same images.

    With a single network of either, means are compared over images: by a paired bootstrap and,
    for one right or wrong answer of each, McNemar's exact test. With several of both, Welch's test
    over seeds, or a paired one, is taken with a hierarchical bootstrap over seeds and images: the
    interval spans both intervals and the p-value is the larger, so that the verdict holds for
    other seeds and for other images.

    Args:
        first: Trials of the first model, at least one.
        second: Trials of the second.
        metric: The metric's name.
        is_paired: Compare trial by trial; both are of the same seeds in the same order.
        margin: Difference in points that does not matter, > 0.

    Raises:
        ValueError: If predictions lack and a model has a single trial.
    """
    values = tuple(each.value for each in first), tuple(each.value for each in second)
    seeds = None
    if min(map(len, values)) > 1:
        seeds = (paired_t if is_paired else welch)(*values)
    resampled = resample(first, second, metric, seeds)
    interval, p, test = _test(first, second, metric, seeds, resampled)
    value = float(np.mean(values[0]) - np.mean(values[1]))
    return Difference(
        first=values[0],
        second=values[1],
        value=value,
        interval=interval,
        p=p,
        test=test,
        images=None if resampled is None else resampled.interval_of(resampled.over_images),
        seeds=seeds,
        num_images=None if resampled is None else resampled.num_images,
        equivalence_p=None if margin is None else _equivalence_p(seeds, resampled, margin),
        design=_design(first, second, metric, seeds, resampled),
    )


def _test(
    first: Sequence[TrialScore],
    second: Sequence[TrialScore],
    metric: str,
    seeds: SeedTest | None,
    resampled: Resampled | None,
) -> tuple[Interval, float, str]:
    """Return the interval, the p-value and the test's name."""
    if seeds is None:
        if resampled is None:
            raise ValueError("a single trial without predictions cannot be compared")
        counts = _discordant(first, second, metric)
        if counts is not None:
            return resampled.interval, mcnemar(*counts), "McNemar's exact test"
        return resampled.interval, resampled.p, "paired bootstrap"
    name = "paired t test" if seeds.is_paired else "Welch's t test"
    if resampled is None:
        name = f"{name} over seeds"
        if seeds.standard_error == 0:  # trials without spread say nothing of it
            return Interval(-100.0, 100.0), 1.0, name
        return seeds.interval, seeds.p, name
    other = resampled.interval
    both = Interval(min(seeds.interval.low, other.low), max(seeds.interval.high, other.high))
    p = max(seeds.p, resampled.p)
    return both, p, f"{name} over seeds and bootstrap over seeds and images"


def _discordant(
    first: Sequence[TrialScore], second: Sequence[TrialScore], metric: str
) -> tuple[int, int] | None:
    """Count the images that only either network gets right; None unless each answers once."""
    right = []
    for each in (*first, *second):
        predictions = each.predictions
        if not isinstance(predictions, ClassPredictions) or predictions.per_image(metric) is None:
            return None
        outcomes = predictions.outcomes(metric)
        assert outcomes is not None
        right += list(outcomes)
    if len(right) != 2:
        return None
    return int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum())


def _equivalence_p(seeds: SeedTest | None, resampled: Resampled | None, margin: float) -> float:
    """Return the largest p-value of a difference beyond the margin, by the tests there are."""
    found = [] if resampled is None else [resampled.equivalence_p(margin)]
    if seeds is not None:
        room = margin - abs(seeds.difference)
        if seeds.standard_error > 0:
            found.append(float(stats.t.sf(room / seeds.standard_error, seeds.degrees_of_freedom)))
        elif resampled is None or room <= 0:
            found.append(1.0)
    return max(found)


def _design(
    first: Sequence[TrialScore],
    second: Sequence[TrialScore],
    metric: str,
    seeds: SeedTest | None,
    resampled: Resampled | None,
) -> Design:
    """Return what decides the power of the tests that ``_test`` takes."""
    if seeds is None:
        assert resampled is not None
        counts = _discordant(first, second, metric)
        if counts is not None:
            return PairDesign(resampled.num_images, sum(counts) / resampled.num_images)
        return MeanDesign(resampled.num_images, resampled.standard_error)
    sides = [np.array([each.value for each in own]) for own in (first, second)]
    if seeds.is_paired:
        sides = [sides[0] - sides[1]]
    num_seeds = tuple(map(len, sides))
    variances = [float(own.var(ddof=1)) for own in sides]
    noise, common, num_images = [0.0] * len(sides), 0.0, None
    if resampled is not None:
        noise, num_images = list(resampled.noise), resampled.num_images
        alone = sum(own / size for own, size in zip(noise, num_seeds, strict=True))
        common = max(0.0, float(np.nanvar(resampled.over_images, ddof=1)) - alone)
    return SeedDesign(
        num_seeds=num_seeds,
        seed_variances=tuple(
            max(0.0, own - part) for own, part in zip(variances, noise, strict=True)
        ),
        image_noise=tuple(noise),
        common_variance=common,
        num_images=num_images,
    )
