"""Answers that classify pixels: the pixels of each class in each image."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from rsa_eval.records.record import BOOTSTRAP
from rsa_eval.statistics.intervals import FloatArray, Interval, interval_of_replicates
from rsa_eval.statistics.mask_overlap import (
    OVERLAP_METRICS,
    PixelCounts,
    overlap_metric,
    overlap_replicates,
)

_NUM_RESAMPLES = 2_000
_ARRAYS = ("right", "truth", "predicted")


@dataclass(frozen=True)
class MaskPredictions:
    """Pixels of C classes in N images: ``mIoU``, ``pixel_accuracy`` and ``mean_accuracy``.

    Pixels of one image are no independent trials, so images are resampled as a whole.
    """

    form: ClassVar[str] = "masks"

    counts: PixelCounts
    """Of each image, arrays (N, C)."""

    @property
    def num_images(self) -> int:
        """N."""
        return len(self.counts.truth)

    def value(self, metric: str) -> float | None:
        """Return a metric in percent; None if it is not of these answers."""
        if metric not in OVERLAP_METRICS:
            return None
        return overlap_metric(self.counts.total(), metric)

    def per_image(self, metric: str) -> None:
        """Return None: no metric is a mean over images."""
        return

    @staticmethod
    def replicates(several: Sequence["MaskPredictions"], metric: str) -> FloatArray:
        """Return the metric of several answers to the same images under resamples, (B, M)."""
        return np.stack([own._resampled[metric] for own in several], axis=1)

    @cached_property
    def _resampled(self) -> dict[str, FloatArray]:
        """Each metric under the resamples that all answers on as many images share, (B,)."""
        return {
            metric: overlap_replicates(self.counts, metric, _NUM_RESAMPLES)
            for metric in OVERLAP_METRICS
        }

    def smallest_group(self, metric: str) -> int:
        """Return the number of images with the rarest class."""
        counts = (self.counts.truth > 0).sum(axis=0)
        return int(counts[counts > 0].min(initial=self.num_images))

    def is_of_same_truth(self, other: "MaskPredictions") -> bool:
        """Return whether all images have as many pixels of each class."""
        return np.array_equal(self.counts.truth, other.counts.truth)

    def interval(self, metric: str) -> tuple[Interval, str] | None:
        """Return the 95 % bootstrap interval over images."""
        if metric not in OVERLAP_METRICS or np.isnan(self._resampled[metric]).all():
            return None
        group = self.smallest_group(metric)
        found = interval_of_replicates(self._resampled[metric], self.num_images, group)
        return found, BOOTSTRAP

    def arrays(self) -> Mapping[str, npt.NDArray[Any]]:
        """Return the counts."""
        return {name: getattr(self.counts, name).astype(np.int64) for name in _ARRAYS}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> Self:
        """Read what ``arrays`` returned.

        Raises:
            KeyError: If an array is missing.
            ValueError: If one has another shape or type, or more pixels are right than there are.
        """
        found = [arrays[name] for name in _ARRAYS]
        shapes = [array.shape for array in found]
        if len(set(shapes)) != 1 or len(shapes[0]) != 2 or 0 in shapes[0]:
            raise ValueError(f"its counts of pixels have shapes {shapes}, expected one (N, C)")
        if any(array.dtype != np.int64 for array in found):
            raise ValueError("its counts of pixels are no int64 numbers")
        right, truth, predicted = found
        if (right < 0).any() or (right > np.minimum(truth, predicted)).any():
            raise ValueError("its counts of right pixels are no part of the others")
        if (truth.sum(axis=1) != predicted.sum(axis=1)).any():
            raise ValueError("it predicts other numbers of pixels than there are")
        return cls(PixelCounts(right, truth, predicted))
