"""Answers of a detector: how its detections match the objects of each image."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from rsa_eval.records.record import BOOTSTRAP
from rsa_eval.statistics.bootstrap import SEED, resampled_counts
from rsa_eval.statistics.coco_precision import AVERAGED_OVERLAPS, ap_replicates_coco
from rsa_eval.statistics.detection_matches import DetectionMatches, arrays, from_arrays
from rsa_eval.statistics.intervals import FloatArray, Interval, interval_of_replicates

_NUM_RESAMPLES = 1_000
_REPLICATES = "replicates"
_IOU_TYPES = ("bbox", "segm")


@dataclass(frozen=True)
class DetectionPredictions:
    """Matches of one detector's boxes, masks or both on N images.

    Metrics are COCO's, with the IoU type in front: ``bbox_AP`` … ``segm_APl``. Resampling COCO's
    5,000 images takes tens of seconds, so replicates are computed once, for resamples that all
    detectors on the same images share, and kept.
    """

    form: ClassVar[str] = "detections"

    matches: Mapping[str, DetectionMatches]
    """By IoU type."""
    resampled: Mapping[str, FloatArray]
    """Each metric under the resamples, (B,) in percent; NaN where a resample has no object."""

    @classmethod
    def of(cls, matches: Mapping[str, DetectionMatches]) -> Self:
        """Compute the replicates of all metrics.

        Args:
            matches: By IoU type, at least one.
        """
        resampled = {
            f"{kind}_{metric}": values
            for kind, own in matches.items()
            for metric, values in _resample(own).items()
        }
        return cls(matches, resampled)

    @property
    def num_images(self) -> int:
        """N."""
        return next(iter(self.matches.values())).num_images

    def value(self, metric: str) -> float | None:
        """Return a metric in percent; None if it is not of these answers."""
        kind, _, name = metric.partition("_")
        if kind not in self.matches or name not in AVERAGED_OVERLAPS:
            return None
        once = np.ones((1, self.num_images), np.int64)
        found = float(ap_replicates_coco(self.matches[kind], once, [name])[name][0])
        return None if found < 0 else found

    def per_image(self, metric: str) -> None:
        """Return None: an average precision is no mean over images."""
        return

    @staticmethod
    def replicates(several: Sequence["DetectionPredictions"], metric: str) -> FloatArray:
        """Return the metric of several answers to the same images under resamples, (B, M)."""
        return np.stack([own.resampled[metric] for own in several], axis=1)

    def smallest_group(self, metric: str) -> int:
        """Return the number of images with objects of the rarest category."""
        own = self.matches[metric.partition("_")[0]]
        counts = np.bincount(own.object_categories)
        return int(counts[counts > 0].min(initial=self.num_images))

    def is_of_same_truth(self, other: "DetectionPredictions") -> bool:
        """Return whether all images have the same objects, by image, category and size."""
        return all(
            np.array_equal(getattr(own, name), getattr(other.matches[kind], name))
            for kind, own in self.matches.items()
            if kind in other.matches
            for name in ("object_images", "object_categories", "num_objects")
        )

    def interval(self, metric: str) -> tuple[Interval, str] | None:
        """Return the 95 % bootstrap interval over images."""
        replicates = self.resampled.get(metric)
        if replicates is None or np.isnan(replicates).all():
            return None
        group = self.smallest_group(metric)
        return interval_of_replicates(replicates, self.num_images, group), BOOTSTRAP

    def arrays(self) -> Mapping[str, npt.NDArray[Any]]:
        """Return matches and replicates, the latter in float32."""
        found: dict[str, npt.NDArray[Any]] = {
            f"{kind}_{name}": array
            for kind, own in self.matches.items()
            for name, array in arrays(own).items()
        }
        found["metrics"] = np.array(list(self.resampled), np.str_)
        found[_REPLICATES] = np.stack(list(self.resampled.values())).astype(np.float32)
        return found

    @classmethod
    def from_arrays(cls, stored: Mapping[str, npt.NDArray[Any]]) -> Self:
        """Read what ``arrays`` returned.

        Raises:
            KeyError: If an array is missing.
            ValueError: If one has another shape, type or range.
        """
        matches = {
            kind: from_arrays(
                {
                    name.removeprefix(f"{kind}_"): array
                    for name, array in stored.items()
                    if name.startswith(f"{kind}_")
                }
            )
            for kind in _IOU_TYPES
            if f"{kind}_extent" in stored
        }
        metrics, replicates = stored["metrics"].tolist(), stored[_REPLICATES]
        numbers = {own.num_images for own in matches.values()}
        expected = [f"{kind}_{metric}" for kind in matches for metric in AVERAGED_OVERLAPS]
        if not isinstance(metrics, list) or sorted(metrics) != sorted(expected):
            raise ValueError(f"its replicates are of {metrics}, expected {expected}")
        shape = (len(metrics), _NUM_RESAMPLES)
        if (
            len(numbers) != 1
            or replicates.shape != shape
            or replicates.dtype != np.float32
            or np.isinf(replicates).any()
        ):
            raise ValueError(
                f"its matches are of {sorted(numbers)} images, its replicates {replicates.shape}"
            )
        return cls(matches, dict(zip(metrics, replicates.astype(float), strict=True)))


def _resample(matches: DetectionMatches) -> dict[str, FloatArray]:
    """Return every metric under the resamples."""
    parts = [
        ap_replicates_coco(matches, counts)
        for counts in resampled_counts(matches.num_images, _NUM_RESAMPLES, SEED)
    ]
    found = {name: np.concatenate([part[name] for part in parts]) for name in AVERAGED_OVERLAPS}
    return {name: np.where(values < 0, np.nan, values) for name, values in found.items()}
