"""Answers that rank images by class: scores for average precision."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from rsa_eval.records.record import BOOTSTRAP
from rsa_eval.statistics.average_precision import ap_replicates, mean_ap_replicates
from rsa_eval.statistics.bootstrap import SEED
from rsa_eval.statistics.intervals import FloatArray, Interval, interval_of_replicates

_METRICS = {"mAP": False, "mAP_11_points": True}
_NUM_RESAMPLES = 2_000


@dataclass(frozen=True)
class RankingPredictions:
    """Scores of N images for C classes.

    Metrics are ``mAP``, the mean over classes of the area under the precision-recall curve, and
    ``mAP_11_points``, of VOC 2007's mean over eleven recalls.
    """

    form: ClassVar[str] = "rankings"

    scores: npt.NDArray[np.float64]
    """Higher is more likely of the class, (N, C)."""
    truth: npt.NDArray[np.int8]
    """1 (present), -1 (absent) or 0 (ignored), (N, C)."""

    @property
    def num_images(self) -> int:
        """N."""
        return len(self.scores)

    def per_image(self, metric: str) -> None:
        """Return None: an average precision is no mean over images."""
        return

    def value(self, metric: str) -> float | None:
        """Return a metric in percent; None if it is not of these answers."""
        if metric not in _METRICS:
            return None
        once, eleven = np.ones((1, self.num_images), np.int64), _METRICS[metric]
        by_class = []
        for scores, own in zip(self.scores.T, self.truth.T, strict=True):
            known = own != 0
            found = ap_replicates(
                scores[known], own[known] == 1, once[:, known], eleven_points=eleven
            )
            by_class.append(found)
        return float(np.nanmean(by_class))

    @staticmethod
    def replicates(several: Sequence["RankingPredictions"], metric: str) -> FloatArray:
        """Return the metric of several answers to the same images under resamples, (B, M)."""
        return np.stack([own._resampled[metric] for own in several], axis=1)

    @cached_property
    def _resampled(self) -> dict[str, FloatArray]:
        """Each metric under the resamples that all answers on as many images share, (B,)."""
        return {
            metric: mean_ap_replicates(
                self.scores, self.truth, _NUM_RESAMPLES, SEED, eleven_points=eleven
            )
            for metric, eleven in _METRICS.items()
        }

    def smallest_group(self, metric: str) -> int:
        """Return the number of images of the rarest class."""
        counts = (self.truth == 1).sum(axis=0)
        return int(counts[counts > 0].min(initial=self.num_images))

    def is_of_same_truth(self, other: "RankingPredictions") -> bool:
        """Return whether all images have the same classes."""
        return np.array_equal(self.truth, other.truth)

    def interval(self, metric: str) -> tuple[Interval, str] | None:
        """Return the 95 % bootstrap interval over images."""
        if metric not in _METRICS:
            return None
        replicates = self.replicates([self], metric)
        group = self.smallest_group(metric)
        return interval_of_replicates(replicates[:, 0], self.num_images, group), BOOTSTRAP

    def arrays(self) -> Mapping[str, npt.NDArray[Any]]:
        """Return scores and truth."""
        return {"scores": self.scores, "truth": self.truth}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> Self:
        """Read what ``arrays`` returned.

        Raises:
            KeyError: If an array is missing.
            ValueError: If one has another shape or type.
        """
        scores, truth = arrays["scores"], arrays["truth"]
        if scores.ndim != 2 or scores.shape != truth.shape or 0 in scores.shape:
            raise ValueError(f"its scores have shape {scores.shape}, its truth {truth.shape}")
        if scores.dtype != np.float64 or truth.dtype != np.int8 or np.isnan(scores).any():
            raise ValueError("its scores are no float64 numbers, or its truth no int8")
        if not np.isin(truth, (-1, 0, 1)).all():
            raise ValueError("its truth has other values than -1, 0 and 1")
        return cls(scores, truth)
