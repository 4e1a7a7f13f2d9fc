"""Score a classifier on sets of shifted images."""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rsa_eval.evaluators.robustness.corrupted import CorruptedImages
from rsa_eval.evaluators.robustness.corruption_error import (
    ALEXNET_ERRORS,
    CORRUPTIONS,
    Errors,
    mean_error,
    mean_relative_error,
    relative_error,
)
from rsa_eval.evaluators.robustness.grading import Graded
from rsa_eval.evaluators.robustness.other_images import OtherImages
from rsa_eval.evaluators.robustness.shifts import Shift
from rsa_eval.evaluators.shared.metrics import Answers
from rsa_eval.records.record import WILSON, Metric, MetricInterval
from rsa_eval.statistics.intervals import wilson
from rsa_pretrain.data.image_set import ImageSet


@dataclass(frozen=True)
class ShiftScores:
    """The part of a result that one set of shifted images contributes."""

    metrics: dict[str, Metric]
    details: dict[str, Any]
    answers: list[Answers] = field(default_factory=list)
    """To the test images under each of the 15 corruptions and each severity."""
    left_out: list[str] = field(default_factory=list)
    """Metrics that the set lacks, and why."""
    deviations: list[str] = field(default_factory=list)


def score_corrupted(
    shift: Shift, images: CorruptedImages, num_classes: int, grade_images: Callable[..., Graded]
) -> ShiftScores:
    """Classify the corrupted test images.

    Without all 15 corruptions there are no means, and no metrics.

    Args:
        shift: The published set.
        images: The test images under each corruption.
        num_classes: Number of classes of the classifier.
        grade_images: Classifies a set of images.

    Returns:
        Accuracy and calibration error averaged over corruptions and severities; and ``mce``
        relative to AlexNet, published for ImageNet-C's 1,000 classes, or elsewhere
        ``mean_corruption_error``, which is relative to nothing.
    """
    graded = {
        name: [grade_images(each) for each in several]
        for name, several in images.by_corruption.items()
    }
    errors = {name: [100 - own.top1 for own in several] for name, several in graded.items()}
    has_baseline = shift.form == "corrupted" and num_classes == shift.num_classes
    details: dict[str, Any] = {
        "sha256": _digest(each for several in images.by_corruption.values() for each in several),
        "corruptions": {},
        "extra_corruptions": {},
    }
    for name, several in graded.items():
        entry: dict[str, Any] = {
            "error": errors[name],
            "ece": [own.calibration.error for own in several],
        }
        if has_baseline and name in ALEXNET_ERRORS:
            entry["corruption_error"] = relative_error(errors[name], ALEXNET_ERRORS[name])
        details["corruptions" if name in CORRUPTIONS else "extra_corruptions"][name] = entry
    if images.missing:
        reason = f"no {', '.join(images.missing)}; {shift.how_to_get}"
        left_out = [f"means over the corruptions of {shift.name}: {reason}"]
        return ShiftScores({}, details, left_out=left_out, deviations=images.deviations)
    counted = [own for name in CORRUPTIONS for own in graded[name]]
    return ShiftScores(
        _mean_metrics(shift, errors, counted, has_baseline),
        details,
        answers=[own.answers for own in counted],
        deviations=images.deviations,
    )


def _mean_metrics(
    shift: Shift, errors: Errors, counted: list[Graded], has_baseline: bool
) -> dict[str, Metric]:
    if has_baseline:
        mean = {"mce": mean_relative_error(errors, ALEXNET_ERRORS)}
    else:
        mean = {"mean_corruption_error": mean_error(errors)}
    values: Mapping[str, float] = {
        f"top1_{shift.name}": 100 - mean_error(errors),
        f"ece_{shift.name}": float(np.mean([own.calibration.error for own in counted])),
        **mean,
    }
    return {name: Metric(value=value, unit="%") for name, value in values.items()}


def score_other(
    shift: Shift, found: OtherImages, grade_images: Callable[..., Graded]
) -> ShiftScores:
    """Classify other images of the same classes.

    Args:
        shift: The published set.
        found: The images, and the classes that may be predicted.
        grade_images: Classifies a set of images, with these classes as its second argument.
    """
    graded = grade_images(found.images, found.classes)
    counts = graded.answers.counts
    interval = wilson(counts.top1, counts.total)
    metrics = {
        f"top1_{shift.name}": Metric(
            value=graded.top1,
            unit="%",
            interval=MetricInterval(low=interval.low, high=interval.high, method=WILSON),
        ),
        f"ece_{shift.name}": Metric(value=graded.calibration.error, unit="%"),
    }
    details = {
        "count": len(found.images),
        "sha256": found.images.fingerprint(),
        "classes": len(found.classes),
        **graded.details(),
    }
    deviations = []
    if len(found.classes) != shift.num_classes:
        deviations.append(
            f"{len(found.classes)} classes of {shift.label} (protocol: {shift.num_classes:,})"
        )
    return ShiftScores(metrics, details, deviations=deviations)


def _digest(sets: Iterable[ImageSet]) -> str:
    """Return one SHA-256 of the fingerprints of several sets of images."""
    return hashlib.sha256("".join(each.fingerprint() for each in sets).encode()).hexdigest()
