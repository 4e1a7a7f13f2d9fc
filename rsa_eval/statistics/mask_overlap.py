"""Measure predicted masks by the confusion of classes over pixels."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rsa_eval.statistics.bootstrap import NUM_RESAMPLES, SEED, resampled_counts
from rsa_eval.statistics.intervals import FloatArray, IntArray

OVERLAP_METRICS = ("mIoU", "pixel_accuracy", "mean_accuracy")


@dataclass(frozen=True)
class PixelCounts:
    """Pixels of each class that count: the diagonal and the sums of a confusion matrix.

    Attributes:
        right: Of this class and predicted so, (…, C).
        truth: Of this class, (…, C).
        predicted: Predicted to be of this class, (…, C).
    """

    right: IntArray
    truth: IntArray
    predicted: IntArray

    def total(self) -> "PixelCounts":
        """Add up the first dimension: the images."""
        sums = (array.sum(axis=0) for array in (self.right, self.truth, self.predicted))
        return PixelCounts(*sums)

    @property
    def union(self) -> IntArray:
        """Pixels of the class, predicted to be so, or both, (…, C)."""
        found: IntArray = self.truth + self.predicted - self.right
        return found


def confusion_matrix(
    truth: npt.NDArray[np.integer], predicted: npt.NDArray[np.integer], num_classes: int
) -> IntArray:
    """Count pixels by true and predicted class; pixels of another true value are ignored.

    Args:
        truth: Class of each pixel, of any shape.
        predicted: Predicted classes, 0 to C - 1, of the same shape.
        num_classes: C.

    Returns:
        Counts by true class (row) and predicted class (column), (C, C).

    Raises:
        ValueError: If the shapes differ.
    """
    if truth.shape != predicted.shape:
        raise ValueError(f"found masks of shapes {truth.shape} and {predicted.shape}")
    counted = (truth >= 0) & (truth < num_classes)
    pairs = truth[counted].astype(np.int64) * num_classes + predicted[counted]
    found: IntArray = np.bincount(pairs, minlength=num_classes**2)
    return found.reshape(num_classes, num_classes)


def class_ious(counts: PixelCounts) -> FloatArray:
    """Return the intersection over union of each class in percent, (…, C); NaN without pixels."""
    return _percent(counts.right, counts.union)


def class_recalls(counts: PixelCounts) -> FloatArray:
    """Return the share of each class's pixels that is right, in percent, (…, C), or NaN."""
    return _percent(counts.right, counts.truth)


def overlap_metric(counts: PixelCounts, metric: str) -> float:
    """Return a metric in percent.

    ``mIoU`` is the mean over all C classes; one that neither occurs nor is predicted counts as 0,
    as in MaskContrast's code. ``mean_accuracy`` is the mean recall of the classes that occur.

    Args:
        counts: Of all pixels, arrays (C,).
        metric: One of ``OVERLAP_METRICS``.
    """
    return float(_metrics(counts, metric, np.zeros(len(counts.truth), bool)))


def overlap_replicates(
    counts: PixelCounts, metric: str, num_resamples: int = NUM_RESAMPLES, seed: int = SEED
) -> FloatArray:
    """Return bootstrap replicates of a metric over images, in percent, (B,).

    Resamples are the same for as many images and the same seed. A class that is in the images but
    not in a resample is left out of the resample's mean.

    Args:
        counts: Of each image, arrays (N, C).
        metric: One of ``OVERLAP_METRICS``.
        num_resamples: Resamples B.
        seed: Seeds the resamples.
    """
    never_seen = counts.total().union == 0
    arrays = [own.astype(np.float64) for own in (counts.right, counts.truth, counts.predicted)]
    parts = []
    for drawn in resampled_counts(len(counts.truth), num_resamples, seed):
        weights = drawn.astype(np.float64)
        # Counts are exact in float64, whose products are far faster than those of integers.
        sums = PixelCounts(*(np.rint(weights @ own).astype(np.int64) for own in arrays))
        parts.append(_metrics(sums, metric, (sums.union == 0) & ~never_seen))
    return np.concatenate(parts)


def _metrics(counts: PixelCounts, metric: str, left_out: npt.NDArray[np.bool_]) -> FloatArray:
    """Return a metric of counts (…, C); classes left out, (…, C), do not count in mIoU."""
    if metric == "mIoU":
        sums = np.nan_to_num(class_ious(counts)).sum(axis=-1)
        return _ratio(sums, (~left_out).sum(axis=-1))
    if metric == "pixel_accuracy":
        return _percent(counts.right.sum(axis=-1), counts.truth.sum(axis=-1))
    assert metric == "mean_accuracy"
    recalls = class_recalls(counts)
    return _ratio(np.nan_to_num(recalls).sum(axis=-1), (counts.truth > 0).sum(axis=-1))


def _percent(part: IntArray, whole: IntArray) -> FloatArray:
    return 100 * _ratio(part, whole)


def _ratio(part: npt.NDArray[np.generic], whole: npt.NDArray[np.generic]) -> FloatArray:
    """Divide; NaN by zero."""
    with np.errstate(invalid="ignore", divide="ignore"):
        found: FloatArray = np.true_divide(part, whole)
    return np.where(np.asarray(whole) == 0, np.nan, found)
