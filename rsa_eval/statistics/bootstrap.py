"""Resample images with replacement: replicates of means, and of means over classes.

Images with equal values are exchangeable, so a resample is drawn as the number of images of each
distinct pattern of values, a multinomial count, instead of as one index per image. Patterns are few
where values are right or wrong.
"""

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from rsa_eval.statistics.intervals import FloatArray, IntArray

NUM_RESAMPLES = 10_000
SEED = 0
"""Seeds the resamples, unless stated otherwise."""

_COUNTS_AT_ONCE = 2**22  # 32 MiB of int64, with a few copies of its size
# In indices drawn one by one: the cost of a pattern's binomial count, and of another call.
_PATTERN_COST, _CALL_COST = 20, 2000


def mean_replicates(
    values: FloatArray,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = SEED,
    *,
    pseudo: float = 0.0,
) -> FloatArray:
    """Return bootstrap replicates of each column's mean over images.

    All columns share the resamples, so that differences of replicates are paired. Columns of two
    calls are not: draws depend on the patterns of the rows, whatever the seed.

    An interval collapses where all images agree. Pseudo-images prevent that: every combination of 0
    and 100 in the columns enters with weight ``pseudo``, and resamples draw as many images as
    there are then, rounded. One column with weight 2 is Agresti & Coull 1998 (The American
    Statistician 52(2)), two columns with weight 0.5 are Agresti & Min 2005 (Statistics in Medicine
    24(5)). Averages over trials vary less than values of 0 and 100 alone, as those of more
    images would; the weight is then multiplied by the ratio of the variances, as for an effective
    sample size (Korn & Graubard 1998, Survey Methodology 24(2)). The replicates scatter around the
    mean of all these images.

    Args:
        values: One row an image, (N, M): in percent 0 for a wrong and 100 for a right image, or
            an average over trials in between.
        num_resamples: Resamples B.
        seed: Seeds the resamples.
        pseudo: Weight of each pseudo-image, >= 0.

    Returns:
        Replicates in the unit of the values, (B, M).

    Raises:
        ValueError: If there is no image, a value is NaN, or pseudo-images are asked for among more
            than two columns; average groups of columns to two first.
    """
    _check(values)
    num_images, num_columns = values.shape
    if pseudo < 0 or (pseudo > 0 and num_columns > 2):
        raise ValueError(
            f"found pseudo={pseudo:g} with {num_columns} columns; expected 0, or a positive weight "
            "with one or two columns"
        )
    first, sizes = _patterns(values.T)
    rng = np.random.default_rng(seed)
    replicates: FloatArray = np.zeros((num_resamples, num_columns))
    num_real, total = np.full(num_resamples, num_images), num_images
    if pseudo > 0:
        corners = np.array(list(itertools.product((0.0, 100.0), repeat=num_columns)))
        weight = pseudo * _variance_ratio(values)
        weights = np.array([num_images, *[weight] * len(corners)])
        total += round(weight * len(corners))
        drawn = rng.multinomial(total, weights / weights.sum(), size=num_resamples)
        num_real = drawn[:, 0]
        replicates += drawn[:, 1:] @ corners
    for rows, counts in _pattern_counts(sizes, num_real, rng):
        replicates[rows] += counts @ values[first]
    replicates /= total
    return replicates


def class_mean_replicates(
    values: FloatArray,
    labels: npt.NDArray[np.integer],
    num_resamples: int = NUM_RESAMPLES,
    seed: int = SEED,
) -> FloatArray:
    """Return bootstrap replicates of each column's mean over classes of the class's mean.

    Images are resampled as a whole, as clusters, from all classes together; a class that is absent
    from a resample does not count in it. Columns share the resamples.

    Args:
        values: One row an image, (N, M).
        labels: Each image's class, (N,).
        num_resamples: Resamples B.
        seed: Seeds the resamples.

    Returns:
        Replicates in the unit of the values, (B, M).

    Raises:
        ValueError: If there is no image, a value is NaN, or labels are not one per image.
    """
    _check(values)
    if labels.shape != values.shape[:1]:
        raise ValueError(f"found labels {labels.shape} for values {values.shape}")
    first, sizes = _patterns([labels, *values.T])
    # Patterns are sorted by label: each class is a run of them.
    starts = np.flatnonzero(np.append(True, labels[first][1:] != labels[first][:-1]))
    replicates = np.empty((num_resamples, values.shape[1]))
    num_drawn = np.full(num_resamples, len(values))
    rng = np.random.default_rng(seed)
    for rows, counts in _pattern_counts(sizes, num_drawn, rng):
        num_of_class = np.add.reduceat(counts, starts, axis=1)  # (b, C)
        num_present = (num_of_class > 0).sum(axis=1)
        divisor = np.maximum(num_of_class, 1)
        for column in range(values.shape[1]):
            sums = np.add.reduceat(counts * values[first, column], starts, axis=1)
            replicates[rows, column] = (sums / divisor).sum(axis=1) / num_present
    return replicates


def resampled_counts(
    num_images: int, num_resamples: int = NUM_RESAMPLES, seed: int = SEED, chunk: int | None = None
) -> Iterator[IntArray]:
    """Yield how often each image occurs in each resample, several resamples at a time.

    Each row is multinomial of N images with equal chances. The rows depend on ``num_images`` and
    ``seed`` alone: any chunk size yields the same, and more resamples continue fewer. Statistics
    computed from the same arguments are thus paired.

    Args:
        num_images: Images N, at least 1.
        num_resamples: Resamples, in all.
        seed: Seeds the resamples.
        chunk: Resamples at a time; by default as many as take 32 MiB.

    Yields:
        Counts, (b, N), each row with sum N.

    Raises:
        ValueError: If there is no image.
    """
    if num_images < 1:
        raise ValueError("found no images to resample; expected at least one")
    rng = np.random.default_rng(seed)
    chunk = max(1, _COUNTS_AT_ONCE // num_images) if chunk is None else chunk
    for start in range(0, num_resamples, chunk):
        size = min(chunk, num_resamples - start)
        drawn = rng.integers(num_images, size=(size, num_images))
        drawn += num_images * np.arange(size)[:, None]  # each resample has bins for itself
        yield np.bincount(drawn.ravel(), minlength=drawn.size).reshape(drawn.shape)


def bootstrap_p(replicates: FloatArray) -> float:
    """Return the two-sided p-value of no difference from replicates of a difference.

    Twice the smaller share of replicates on one side of zero, zero included, at most 1. One is
    added to each count and to the number of resamples (Davison & Hinkley 1997, Eq. 4.11), so that
    no p-value is 0.

    Args:
        replicates: The difference in each resample, (B,); NaN, where undefined, is left out.

    Raises:
        ValueError: If no replicate is defined.
    """
    defined = replicates[~np.isnan(replicates)]
    if not len(defined):
        raise ValueError("the statistic is undefined in every resample")
    fewest = min((defined <= 0).sum(), (defined >= 0).sum())
    return min(1.0, 2 * float(fewest + 1) / (len(defined) + 1))


def _variance_ratio(values: FloatArray) -> float:
    """Return the values' variance over that of 0 and 100 with the same means, at most 1.

    It is 1 for such values, and where all images agree, so that nothing can be said.
    """
    means = values.mean(axis=0)
    variance, greatest = values.var(axis=0).sum(), (means * (100 - means)).sum()
    return min(1.0, float(variance / greatest)) if variance > 0 else 1.0


def _check(values: FloatArray) -> None:
    if values.ndim != 2 or not len(values):
        raise ValueError(f"found values {values.shape}; expected (N, M) with at least one image")
    if np.isnan(values).any():
        raise ValueError("values contain NaN")


def _patterns(columns: Sequence[npt.NDArray[np.generic]] | FloatArray) -> tuple[IntArray, IntArray]:
    """Return an image with each distinct pattern, patterns sorted, and how many images have it."""
    codes = np.zeros(len(columns[0]), np.int64)
    for column in columns:
        _, inverse = np.unique(column, return_inverse=True)
        # Codes stay below N, so their products fit.
        _, codes = np.unique(codes * (inverse.max() + 1) + inverse, return_inverse=True)
    _, first, sizes = np.unique(codes, return_index=True, return_counts=True)
    return first, sizes


def _pattern_counts(
    sizes: IntArray, num_drawn: IntArray, rng: np.random.Generator
) -> Iterator[tuple[slice, IntArray]]:
    """Yield slices of resamples with the number of images of each pattern, (b, K).

    Args:
        sizes: Images with each pattern, (K,).
        num_drawn: Images in each resample, (B,).
        rng: Draws the resamples.
    """
    num_images, num_patterns = int(sizes.sum()), len(sizes)
    pattern_of_image = np.repeat(np.arange(num_patterns), sizes)
    chunk = max(1, _COUNTS_AT_ONCE // num_patterns)
    for start in range(0, len(num_drawn), chunk):
        rows = slice(start, min(start + chunk, len(num_drawn)))
        if _PATTERN_COST * num_patterns < num_images + _CALL_COST:
            yield rows, rng.multinomial(num_drawn[rows], sizes / num_images)
            continue
        counts = np.empty((rows.stop - start, num_patterns), np.int64)
        for row, size in zip(counts, num_drawn[rows], strict=True):
            drawn = pattern_of_image[rng.integers(num_images, size=size)]
            row[:] = np.bincount(drawn, minlength=num_patterns)
        yield rows, counts
