"""Answers of classifiers: a class for each image, from one training or several."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from rsa_eval.records.record import BOOTSTRAP, WILSON
from rsa_eval.statistics.bootstrap import class_mean_replicates, mean_replicates
from rsa_eval.statistics.intervals import (
    FloatArray,
    Interval,
    interval_of_replicates,
    wilson,
)

_TOP = {"top1": 1, "top5": 5}
_PER_CLASS = "mean_per_class"
# Weight of the right and of the wrong image that keep an interval open where all are alike.
_PSEUDO = 2.0


@dataclass(frozen=True)
class ClassPredictions:
    """Answers of A classifiers to N images of C classes.

    Metrics are ``top1``, ``top5`` and ``mean_per_class``, followed by ``_NAME`` for classifiers
    with a name; each is the mean over the classifiers of that name, such as the draws of a subset.
    """

    form: ClassVar[str] = "classes"

    labels: npt.NDArray[np.integer]
    """True classes, (N,)."""
    predicted: npt.NDArray[np.integer]
    """Predicted classes, (A, N)."""
    ranks: npt.NDArray[np.integer]
    """Number of classes that a classifier ranks before the true one, (A, N); at most 255."""
    names: tuple[str, ...]
    """Name of each classifier, (A,); empty for an evaluation's only kind."""
    num_classes: int

    @property
    def num_images(self) -> int:
        """N."""
        return len(self.labels)

    def outcomes(self, metric: str) -> npt.NDArray[np.bool_] | None:
        """Return whether each classifier of a metric is right, (R, N); None if there is none."""
        base, name = _parts(metric)
        rows = [row for row, own in enumerate(self.names) if own == name]
        if base is None or not rows:
            return None
        right: npt.NDArray[np.bool_] = self.ranks[rows] < _TOP.get(base, 1)
        return right

    def shares(self, metric: str) -> FloatArray:
        """Return the percentage of a metric's classifiers that are right on each image, (N,).

        Raises:
            ValueError: If the metric is not of these answers.
        """
        outcomes = self.outcomes(metric)
        if outcomes is None:
            raise ValueError(f"these answers have no metric '{metric}'")
        return np.asarray(100 * outcomes.mean(axis=0))

    def value(self, metric: str) -> float | None:
        """Return a metric in percent; None if it is not of these answers."""
        if self.outcomes(metric) is None:
            return None
        shares = self.shares(metric)
        if not metric.startswith(_PER_CLASS):
            return float(shares.mean())
        by_class = [shares[self.labels == label].mean() for label in np.unique(self.labels)]
        # Equal shares have equal means in any order.
        return math.fsum(by_class) / len(by_class)

    def per_image(self, metric: str) -> FloatArray | None:
        """Return the percentage of classifiers right on each image, (N,)."""
        if self.outcomes(metric) is None or metric.startswith(_PER_CLASS):
            return None
        return self.shares(metric)

    @staticmethod
    def replicates(several: Sequence["ClassPredictions"], metric: str) -> FloatArray:
        """Return the metric of several answers to the same images under resamples, (B, M)."""
        values = np.stack([own.shares(metric) for own in several], axis=1)
        if metric.startswith(_PER_CLASS):
            return class_mean_replicates(values, several[0].labels)
        return mean_replicates(values)

    def smallest_group(self, metric: str) -> int:
        """Return the number of images, of the smallest class for a mean per class."""
        if not metric.startswith(_PER_CLASS):
            return self.num_images
        return int(np.unique(self.labels, return_counts=True)[1].min())

    def is_of_same_truth(self, other: "ClassPredictions") -> bool:
        """Return whether all images have the same class."""
        return np.array_equal(self.labels, other.labels)

    def interval(self, metric: str) -> tuple[Interval, str] | None:
        """Return the 95 % interval over images: Wilson's for one classifier, else bootstrap."""
        outcomes = self.outcomes(metric)
        if outcomes is None:
            return None
        if metric.startswith(_PER_CLASS):
            replicates = self.replicates([self], metric)
        elif len(outcomes) == 1:
            return wilson(int(outcomes.sum()), self.num_images), WILSON
        else:
            replicates = mean_replicates(self.shares(metric)[:, None], pseudo=_PSEUDO)
        group = self.smallest_group(metric)
        return interval_of_replicates(replicates[:, 0], self.num_images, group), BOOTSTRAP

    def arrays(self) -> Mapping[str, npt.NDArray[Any]]:
        """Return the answers in the smallest integer types that can represent them."""
        kind = np.min_scalar_type(max(0, self.num_classes - 1))
        return {
            "labels": self.labels.astype(kind),
            "predicted": self.predicted.astype(kind),
            "ranks": np.minimum(self.ranks, 255).astype(np.uint8),
            "names": np.array(self.names, np.str_),
            "num_classes": np.array(self.num_classes),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> Self:
        """Read what ``arrays`` returned.

        Raises:
            KeyError: If an array is missing.
            ValueError: If one has another shape, type or range.
        """
        labels, predicted = arrays["labels"], arrays["predicted"]
        ranks, names = arrays["ranks"], arrays["names"]
        if arrays["num_classes"].shape != ():
            raise ValueError(f"its number of classes has shape {arrays['num_classes'].shape}")
        num_classes = int(arrays["num_classes"])
        shape = (len(names), len(labels)) if names.ndim == labels.ndim == 1 else None
        if predicted.shape != shape or ranks.shape != shape or 0 in predicted.shape:
            raise ValueError(
                f"its answers have shapes {predicted.shape} and {ranks.shape}, for labels "
                f"{labels.shape} and names {names.shape}"
            )
        if any(array.dtype.kind != "u" for array in (labels, predicted, ranks)):
            raise ValueError("its answers are not whole numbers from 0 on")
        highest = max(int(labels.max()), int(predicted.max()))
        if highest >= num_classes:
            raise ValueError(f"its answers name class {highest} of {num_classes}")
        return cls(labels, predicted, ranks, tuple(map(str, names)), num_classes)


def _parts(metric: str) -> tuple[str | None, str]:
    """Return the metric's base and the name of its classifiers; None for another metric."""
    for base in (*_TOP, _PER_CLASS):
        if metric == base or metric.startswith(f"{base}_"):
            return base, metric[len(base) + 1 :]
    return None, ""
