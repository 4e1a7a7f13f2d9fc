"""Invert curves of accuracy over labels per class: how many labels give the same accuracy?

Sizes are labels per class, accuracies percentages. A number of labels is 0 where fewer than the
smallest size suffice, infinity where all labels do not.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rsa_eval.statistics.bootstrap import NUM_RESAMPLES, SEED, mean_replicates
from rsa_eval.statistics.intervals import FloatArray, Interval, percentile_interval

# Accuracies are multiples of 100 / (N D), so that smaller differences are rounding.
_ROUNDING = 1e-9
# Images that every model gets right, and as many that every model gets wrong, keep the interval of
# an accuracy open at 0 and 100 % (Agresti & Coull 1998); they move no comparison of two models.
_PSEUDO_IMAGES = 2


@dataclass(frozen=True)
class LabelsNeeded:
    """Labels per class that one model needs for another's accuracy; 0 or infinity if open."""

    labels: float
    interval: Interval
    """95 %, over test images and draws."""
    is_beyond: bool = False
    """True if the whole interval is above the curve's largest number of labels."""
    is_below: bool = False
    """True if the whole interval is below its smallest."""


def monotone(accuracies: FloatArray) -> FloatArray:
    """Return the non-decreasing curve nearest to each curve in least squares.

    Isotonic regression by its min-max formula (Robertson, Wright & Dykstra 1988, Eq. 1.4.3): at k,
    the largest over i <= k of the smallest over j >= k of the mean from i to j.

    Args:
        accuracies: Along the last axis in the order of the sizes, (…, K).
    """
    num_sizes = accuracies.shape[-1]
    fitted = np.full(accuracies.shape, -np.inf)
    for first in range(num_sizes):
        lowest = np.full(accuracies.shape[:-1], np.inf)
        for place in reversed(range(first, num_sizes)):
            mean = accuracies[..., first : place + 1].mean(axis=-1)
            lowest = np.minimum(lowest, mean)
            fitted[..., place] = np.maximum(fitted[..., place], lowest)
    return fitted


def labels_needed(sizes: FloatArray, curves: FloatArray, targets: FloatArray) -> FloatArray:
    """Return the fewest labels per class with which each curve reaches its target.

    Curves are made non-decreasing and interpolated linearly in the logarithm of the labels.

    Args:
        sizes: Increasing, > 0, (K,).
        curves: Accuracy at each size, (B, K).
        targets: Accuracies to reach, (B,).

    Returns:
        (B,); the smallest size itself where the curve starts at the target.

    Raises:
        ValueError: If shapes disagree or sizes do not increase.
    """
    if curves.shape != (len(targets), len(sizes)) or not len(sizes):
        raise ValueError(f"found curves {curves.shape} for {len(targets)} targets and {sizes}")
    if sizes[0] <= 0 or (np.diff(sizes) <= 0).any():
        raise ValueError(f"found sizes {sizes}; expected increasing ones above 0")
    fitted = monotone(curves)
    reached = fitted >= targets[:, None] - _ROUNDING
    first = reached.argmax(axis=1)
    before, rows = np.maximum(first - 1, 0), np.arange(len(targets))
    low, high = fitted[rows, before], fitted[rows, first]
    rise = np.where(first > 0, high - low, 1.0)
    share = np.clip((targets - low) / np.where(rise > 0, rise, 1.0), 0.0, 1.0)
    needed: FloatArray = sizes[before] * (sizes[first] / sizes[before]) ** share
    exceeds = (first == 0) & (fitted[:, 0] > targets + _ROUNDING)
    needed[exceeds] = 0.0
    needed[~reached.any(axis=1)] = np.inf
    return needed


def curve_replicates(
    curves: Sequence[Mapping[float, FloatArray]],
    num_resamples: int = NUM_RESAMPLES,
    seed: int = SEED,
) -> list[FloatArray]:
    """Return replicates of every model's curve, over test images and draws together.

    Images are resampled with replacement, jointly for all curves. To each size with D > 1 draws is
    added the error of a mean over D draws: Student's t with D - 1 degrees of freedom times its
    standard error, since resampling a few draws would vary too little. The error is a random
    combination of the draws' deviations, the same for every model, so that a draw which suits all
    of them cancels in their comparison. It leaves out the noise of single images in single draws,
    which the resampled images contain. A single draw adds nothing.

    Args:
        curves: A model's percentage for each draw and test image, (D, N), by labels per class.
            Draws of a size must be the same ones, in the same order, for all models.
        num_resamples: Replicates B.
        seed: Seeds images and draws.

    Returns:
        For each model (B, K), sizes in increasing order; in [0, 100].

    Raises:
        ValueError: If models differ in images, or in the draws of a size.
    """
    blocks = [curve[size] for curve in curves for size in sorted(curve)]
    if len({block.shape[1] for block in blocks}) != 1:
        raise ValueError("found curves of different test images")
    values = np.concatenate(blocks).T
    pseudo = np.repeat([0.0, 100.0], _PSEUDO_IMAGES)[:, None]
    values = np.concatenate([values, np.broadcast_to(pseudo, (len(pseudo), values.shape[1]))])
    ends = np.cumsum([len(block) for block in blocks])
    by_block = iter(np.split(mean_replicates(values, num_resamples, seed), ends[:-1], axis=1))
    weights: dict[float, FloatArray] = {}
    found = []
    for curve in curves:
        columns = []
        for size in sorted(curve):
            draws, share = next(by_block), _share_of_draws(curve[size])
            if size not in weights:
                generator = np.random.default_rng([seed, len(weights), 1])
                weights[size] = _error_weights(num_resamples, draws.shape[1], generator)
            if weights[size].shape != draws.shape:
                raise ValueError(f"found different numbers of draws with {size:g} labels per class")
            columns.append(draws.mean(axis=1) + share * (weights[size] * draws).sum(axis=1))
        found.append(np.clip(np.stack(columns, axis=1), 0.0, 100.0))
    return found


def _error_weights(
    num_resamples: int, num_draws: int, generator: np.random.Generator
) -> FloatArray:
    """Return weights, (B, D), that turn draws into the error of their mean.

    Sums are 0 in each row; a row times draws of variance s² is t times s / sqrt(D).
    """
    if num_draws == 1:
        return np.zeros((num_resamples, 1))
    weights = generator.standard_normal((num_resamples, num_draws))
    weights -= weights.mean(axis=1, keepdims=True)
    degrees = num_draws - 1
    scale = np.sqrt(degrees / generator.chisquare(degrees, size=(num_resamples, 1)))
    scaled: FloatArray = weights * scale / np.sqrt(num_draws * degrees)
    return scaled


def _share_of_draws(outcomes: FloatArray) -> float:
    """Return the share of the draws' standard deviation that more images would not remove.

    By the two-way analysis of variance of the outcomes, (D, N), without replication: the variance
    of the draws' means less the interaction's mean square over N; 0 if that is negative.
    """
    num_draws, num_images = outcomes.shape
    if min(num_draws, num_images) == 1:
        return 0.0
    means = outcomes.mean(axis=1, keepdims=True)
    rest = outcomes - means - outcomes.mean(axis=0) + outcomes.mean()
    noise = float((rest**2).sum()) / ((num_draws - 1) * (num_images - 1) * num_images)
    variance = float(means.var(ddof=1))
    return math.sqrt(max(0.0, 1 - noise / variance)) if variance > 0 else 0.0


def needed_with_interval(
    sizes: FloatArray,
    curve: FloatArray,
    target: float,
    of_curve: FloatArray,
    of_target: FloatArray,
    num_images: int,
) -> LabelsNeeded:
    """Return the labels that a curve needs for an accuracy, with its interval.

    Args:
        sizes: Of the curve, (K,).
        curve: Its accuracies, (K,).
        target: The accuracy to reach.
        of_curve: Its replicates, (B, K).
        of_target: Replicates of the accuracy to reach, in the same resamples, (B,).
        num_images: Test images.
    """
    point = labels_needed(sizes, curve[None], np.array([target]))
    replicates = labels_needed(sizes, of_curve, of_target)
    # Finite stand-ins for 0 and infinity, as quantiles interpolate; they are far outside.
    least, most = float(sizes[0]), float(sizes[-1])
    finite = np.clip(replicates, least / 2, most * 2)
    found = percentile_interval(finite, num_images)
    low = 0.0 if found.low < least else found.low
    high = np.inf if found.high > most else found.high
    # Both bounds may be open to one side: only more than the largest, or fewer than the smallest.
    is_beyond, is_below = low > most, high < least
    low, high = min(low, most), max(high, least)
    return LabelsNeeded(float(point[0]), Interval(low, high), is_beyond, is_below)
