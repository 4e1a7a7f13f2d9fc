"""Resample the difference of two models over images and seeds."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from rsa_eval.records.class_predictions import ClassPredictions
from rsa_eval.records.predictions import Predictions
from rsa_eval.statistics.bootstrap import bootstrap_p, mean_replicates
from rsa_eval.statistics.intervals import LEVEL, FloatArray, Interval, interval_of_replicates
from rsa_eval.statistics.paired import equivalence_p
from rsa_eval.statistics.seeds import SeedTest, hierarchical_differences, trial_noise

# Weight of each pseudo-image in a pair of accuracies (Agresti & Min 2005).
_PSEUDO = 0.5


@dataclass(frozen=True)
class TrialScore:
    """A metric of one trained network."""

    value: float
    """In percent."""
    predictions: Predictions | None
    """Its answers; None if they were not kept."""


@dataclass(frozen=True)
class Resampled:
    """Replicates of the difference, (B,)."""

    over_images: FloatArray
    over_all: FloatArray
    """Over images and, with several seeds of both models, over seeds."""
    num_images: int
    smallest_group: int
    """Images behind the least certain part of the metric, such as a class."""
    num_differing: int
    """Images that the models answer unlike; all, for answers that are not right or wrong."""
    noise: tuple[float, ...] = ()
    """Variance of one trial by images that others do not share; of each side, or of pairs."""

    @property
    def interval(self) -> Interval:
        """The 95 % interval of the difference, over images and seeds."""
        return self.interval_of(self.over_all)

    def interval_of(self, replicates: FloatArray) -> Interval:
        """Return the interval of replicates of the difference."""
        return interval_of_replicates(replicates, self.num_images, self.smallest_group, -100.0)

    @property
    def p(self) -> float:
        """The p-value of no difference.

        The bootstrap's has a floor at its number of resamples; where no resample is on the other
        side of zero, the normal distribution extends it. No test has a smaller one than the sign
        test's 2 / 2^n of the n images that the models answer unlike.
        """
        p = bootstrap_p(self.over_all)
        if p <= 2.5 / len(self.over_all):
            z = abs(float(np.nanmean(self.over_all))) / self.standard_error
            p = min(p, 2 * float(stats.norm.sf(z)))
        return min(1.0, max(p, 2 * 0.5**self.num_differing))

    def equivalence_p(self, margin: float) -> float:
        """Return the p-value of a difference beyond the margin, on the same ground."""
        if not _is_constant(self.over_all):
            return equivalence_p(self.over_all, margin)
        middle = abs(float(self.over_all[0]))
        room = max(0.0, margin - middle) / (100 + middle)
        return float((1 - min(room, 1)) ** self.smallest_group)

    @property
    def standard_error(self) -> float:
        """Of normal replicates with this interval; few seeds have tails without a deviation."""
        return self.interval.half_width / float(stats.norm.isf((1 - LEVEL) / 2))


def _is_constant(replicates: FloatArray) -> bool:
    return bool(np.nanmax(replicates) == np.nanmin(replicates))


def resample(
    first: Sequence[TrialScore],
    second: Sequence[TrialScore],
    metric: str,
    seeds: SeedTest | None,
) -> Resampled | None:
    """Resample images and, with several seeds of both models, seeds.

    Args:
        first: Trials of the first model.
        second: Trials of the second; predictions are of the same images.
        metric: The metric's name.
        seeds: The test over seeds; None if a model has a single trial.

    Returns:
        The replicates; None unless all trials have predictions.
    """
    kept = [each.predictions for each in (*first, *second) if each.predictions is not None]
    if len(kept) < len(first) + len(second):
        return None
    sizes = (
        kept[0].num_images,
        kept[0].smallest_group(metric),
        _num_differing(first, second, metric),
    )
    shares = [predictions.per_image(metric) for predictions in kept]
    known = [share for share in shares if share is not None]
    if seeds is None and len(known) == len(kept):
        columns = (known[: len(first)], known[len(first) :])
        pair = np.stack([np.mean(own, axis=0) for own in columns], axis=1)
        means = mean_replicates(pair, pseudo=_PSEUDO)
        difference = means[:, 0] - means[:, 1]
        return Resampled(difference, difference, *sizes)
    replicates = type(kept[0]).replicates(kept, metric)
    ours, theirs = replicates[:, : len(first)], replicates[:, len(first) :]
    over_images = ours.mean(axis=1) - theirs.mean(axis=1)
    if seeds is None:
        return Resampled(over_images, over_images, *sizes)
    over_all = hierarchical_differences(ours, theirs, is_paired=seeds.is_paired)
    sides = [ours - theirs] if seeds.is_paired else [ours, theirs]
    defined = ~np.isnan(over_images)
    noise = tuple(trial_noise(own[defined]) for own in sides)
    return Resampled(over_images, over_all, *sizes, noise)


def _num_differing(first: Sequence[TrialScore], second: Sequence[TrialScore], metric: str) -> int:
    """Count the images that the sides' mean answers differ on."""
    means = []
    for side in (first, second):
        kept = [each.predictions for each in side if each.predictions is not None]
        shares = [own.shares(metric) for own in kept if isinstance(own, ClassPredictions)]
        if not shares:
            return kept[0].num_images
        means.append(np.mean(shares, axis=0))
    return int((~np.isclose(*means)).sum())
