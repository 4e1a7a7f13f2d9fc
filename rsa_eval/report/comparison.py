"""Plot the monitored measures of runs on the same images together, a line per row of trials."""

import math
import statistics
from collections.abc import Sequence
from typing import Any

from rsa_eval.records.image_sets import name_training_set
from rsa_eval.report.figures import SERIES, Picture, canvas
from rsa_eval.report.inputs import TrainingRun, trials_folder
from rsa_eval.report.tables import data_set_name
from rsa_pretrain.config import PretrainConfig

_METRICS = {"knn_top1": "kNN top-1 (%)", "rankme": "effective rank (RankMe)"}
"""Measures of held-out training images, in the log → on the plot."""
_LINE_STYLES = ("-", "--", ":")

_Curve = dict[float, list[float]]


def compare_runs(runs: Sequence[TrainingRun]) -> list[Picture]:
    """Plot each set of rows with the same network and training images, one measure at a time.

    A row is one folder of trials, or a single run. Its line is the mean over its trials by epoch,
    with a band from their minimum to their maximum.
    """
    families: dict[tuple[str, str], dict[str, _Curve]] = {}
    for run in runs:
        for metric, label in _METRICS.items():
            points = _points(run, metric)
            if run.pretraining is not None and points:
                rows = families.setdefault((_family(run.pretraining), label), {})
                curve = rows.setdefault(_row(run), {})
                for epoch, value in points:
                    curve.setdefault(epoch, []).append(value)
    return [
        _draw(f"{family}: {label}", rows)
        for (family, label), rows in families.items()
        if len(rows) > 1
    ]


def _points(run: TrainingRun, metric: str) -> list[tuple[float, float]]:
    return [
        (float(line["epoch"]), float(line[metric]))
        for line in run.metrics
        if all(_is_finite(line.get(name)) for name in ("epoch", metric))
    ]


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _family(config: PretrainConfig) -> str:
    num_images = config.data.num_train_images
    images = "" if num_images is None else f", {num_images} images"
    data_set = data_set_name(name_training_set(config.data.name, config.data.model_dump()))
    return f"{data_set}{images}, {config.backbone.name}, {config.backbone.stem} stem"


def _row(run: TrainingRun) -> str:
    folder = trials_folder(run.folder)
    return run.name if folder is None else folder.absolute().name


def _draw(title: str, rows: dict[str, _Curve]) -> Picture:
    with canvas(title, "epoch", len(rows)) as drawn:
        for number, (row, curve) in enumerate(rows.items()):
            epochs = sorted(curve)
            colour = SERIES[number % len(SERIES)]
            drawn.axes.plot(
                epochs,
                [statistics.fmean(curve[epoch]) for epoch in epochs],
                color=colour,
                linewidth=1.6,
                linestyle=_LINE_STYLES[number // len(SERIES) % len(_LINE_STYLES)],
                marker="o",
                markersize=3,
                label=row,
            )
            low = [min(curve[epoch]) for epoch in epochs]
            high = [max(curve[epoch]) for epoch in epochs]
            drawn.axes.fill_between(epochs, low, high, color=colour, alpha=0.12, linewidth=0)
    return Picture(title, drawn.svg)
