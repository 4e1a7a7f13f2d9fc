"""Read the finished records of a label curve: accuracies, labels saved, and their intervals."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rsa_eval.campaigns.campaign import Outcome
from rsa_eval.campaigns.label_curve.plan import (
    RECORD,
    CurveModel,
    CurvePlan,
    CurveSize,
    supervised_record,
)
from rsa_eval.campaigns.trials import record_path
from rsa_eval.records.class_predictions import ClassPredictions
from rsa_eval.records.predictions import read_predictions
from rsa_eval.statistics.intervals import FloatArray, Interval, percentile_interval
from rsa_eval.statistics.label_savings import (
    LabelsNeeded,
    curve_replicates,
    needed_with_interval,
)
from rsa_pretrain.plumbing.errors import UserError

Outcomes = dict[CurveSize, FloatArray]
"""Percentage of each draw and test image, 0 or 100, (D, N)."""


@dataclass(frozen=True)
class CurvePoint:
    """Accuracy with one number of labels."""

    size: CurveSize
    top1: float
    """Mean over draws, in percent."""
    interval: Interval
    """95 %, over test images and draws."""
    by_draw: tuple[float, ...]


@dataclass(frozen=True)
class ModelCurve:
    """A model's points by increasing number of labels; sizes whose records failed are missing."""

    model: CurveModel
    points: tuple[CurvePoint, ...]


@dataclass(frozen=True)
class LabelSaving:
    """A checkpoint's accuracy in labels of a baseline."""

    checkpoint: CurveModel
    baseline: CurveModel
    point: CurvePoint
    """Of the checkpoint."""
    needed: LabelsNeeded
    most: CurveSize
    """The baseline's largest number of labels."""
    least: CurveSize
    """Its smallest."""

    @property
    def is_shown(self) -> bool:
        """True if the baseline needs more labels, by the whole interval."""
        own = self.point.size.labels_per_class
        is_beyond = self.needed.is_beyond and own <= self.most.labels_per_class
        return is_beyond or self.needed.interval.low > own

    @property
    def is_reversed(self) -> bool:
        """True if the baseline needs fewer labels, by the whole interval."""
        own = self.point.size.labels_per_class
        is_below = self.needed.is_below and own >= self.least.labels_per_class
        return is_below or self.needed.interval.high < own


@dataclass(frozen=True)
class LabelCurves:
    """All curves and comparisons of one campaign."""

    plan: CurvePlan
    curves: tuple[ModelCurve, ...]
    savings: tuple[LabelSaving, ...]
    num_images: int
    """Test images."""


def read_curves(plan: CurvePlan, outcome: Outcome) -> LabelCurves | None:
    """Compute curves and comparisons from the records of an outcome.

    Returns:
        None if no model has a finished point.

    Raises:
        UserError: If the predictions of a record are missing, or were made from other test images.
    """
    keys: dict[tuple[str, ...], str] = {}
    every = [(model, _outcomes(plan, outcome, model, keys)) for model in plan.models]
    found = [(model, own) for model, own in every if own]
    if not found:
        return None
    if len(keys) > 1:
        first, second, *_ = keys.values()
        raise UserError(
            f"'{first}' and '{second}' were made from different test images; delete the older and "
            "rerun the command"
        )
    num_images = len(next(iter(keys)))
    replicates = curve_replicates([_by_labels(own) for _, own in found])
    curves = [
        ModelCurve(model, _points(own, columns, num_images))
        for (model, own), columns in zip(found, replicates, strict=True)
    ]
    savings = _savings(curves, replicates, num_images)
    return LabelCurves(plan, tuple(curves), tuple(savings), num_images)


def _outcomes(
    plan: CurvePlan, outcome: Outcome, model: CurveModel, keys: dict[tuple[str, ...], str]
) -> Outcomes:
    """Return a model's outcomes by size, and note the test images of its records in ``keys``."""
    found: Outcomes = {}
    for size in plan.sizes:
        if model.kind == "supervised":
            names = [supervised_record(size, draw) for draw in range(size.num_draws)]
            metric = "top1"
        else:
            names, metric = [RECORD], f"top1_{size.subset.name}"
        rows = [_rows(outcome, model, name, metric, keys) for name in names]
        finished = [own for own in rows if own is not None]
        if len(finished) == len(names):
            found[size] = np.concatenate(finished)
    return found


def _rows(
    outcome: Outcome, model: CurveModel, name: str, metric: str, keys: dict[tuple[str, ...], str]
) -> FloatArray | None:
    record = outcome.records.get((model.trial.name, name))
    if record is None:
        return None
    path = record_path(model.trial, name)
    keyed = read_predictions(path, record)
    keys.setdefault(keyed.keys, str(path))
    assert isinstance(keyed.predictions, ClassPredictions), path
    outcomes = keyed.predictions.outcomes(metric)
    assert outcomes is not None, (path, metric)
    return np.asarray(100.0 * outcomes)


def _by_labels(outcomes: Outcomes) -> dict[float, FloatArray]:
    return {size.labels_per_class: own for size, own in outcomes.items()}


def _points(outcomes: Outcomes, replicates: FloatArray, num_images: int) -> tuple[CurvePoint, ...]:
    points = []
    for place, (size, own) in enumerate(outcomes.items()):
        interval = percentile_interval(replicates[:, place], num_images)
        by_draw = tuple(own.mean(axis=1).tolist())
        points.append(CurvePoint(size, float(own.mean()), interval, by_draw))
    return tuple(points)


def _savings(
    curves: Sequence[ModelCurve], replicates: Sequence[FloatArray], num_images: int
) -> list[LabelSaving]:
    """Compare each point of a checkpoint with the baselines of its network, if there are any."""
    savings = []
    pairs = list(zip(curves, replicates, strict=True))
    baselines = [pair for pair in pairs if pair[0].model.kind != "checkpoint"]
    for curve, own in pairs:
        if curve.model.kind != "checkpoint":
            continue
        same = [pair for pair in baselines if pair[0].model.network == curve.model.network]
        for baseline, others in same:
            sizes = np.array([point.size.labels_per_class for point in baseline.points])
            accuracies = np.array([point.top1 for point in baseline.points])
            for place, point in enumerate(curve.points):
                needed = needed_with_interval(
                    sizes, accuracies, point.top1, others, own[:, place], num_images
                )
                least, most = baseline.points[0].size, baseline.points[-1].size
                savings.append(LabelSaving(curve.model, baseline.model, point, needed, most, least))
    return savings
