"""Plot a run's log, one small plot per quantity."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rsa_eval.report.figures import SERIES, Picture, canvas

_MOST_POINTS = 400


@dataclass(frozen=True)
class CurvePanel:
    """One plot over optimizer steps."""

    title: str
    keys: tuple[str, ...]
    """Metrics to plot; a key ending in * matches all with that prefix."""


CURVE_PANELS = (
    CurvePanel("loss", ("loss*",)),
    CurvePanel("beta", ("beta",)),
    CurvePanel("EMA momentum", ("ema_momentum",)),
    CurvePanel("learning rate", ("lr",)),
    CurvePanel("standard deviation of projections", ("projection_std",)),
    CurvePanel("gradient norm", ("grad_norm",)),
    CurvePanel("online kNN, held-out training images (%)", ("knn_top1",)),
    CurvePanel("effective rank (RankMe), held-out training images", ("rankme",)),
    CurvePanel("average precision (%)", ("bbox_AP", "segm_AP")),
)


def draw_curves(metrics: Sequence[dict[str, Any]]) -> list[Picture]:
    """Plot the panels for which a log has numbers.

    Args:
        metrics: Lines of a ``metrics.jsonl``; curves of more than 400 points are thinned evenly,
            keeping the last point.
    """
    pictures = []
    for panel in CURVE_PANELS:
        series = {
            key: curve_points(metrics, key, _MOST_POINTS) for key in matching_keys(metrics, panel)
        }
        series = {key: points for key, points in series.items() if points}
        if series:
            pictures.append(Picture(panel.title, _draw(panel.title, series)))
    return pictures


def matching_keys(metrics: Sequence[dict[str, Any]], panel: CurvePanel) -> list[str]:
    """Return the keys of a log that belong in a panel."""
    names = dict.fromkeys(name for line in metrics for name in line)
    return [
        name
        for pattern in panel.keys
        for name in names
        if name == pattern or (pattern.endswith("*") and name.startswith(pattern[:-1]))
    ]


def curve_points(metrics: Sequence[dict[str, Any]], key: str, most: int) -> list[tuple[int, float]]:
    """Return a key's finite values by step, of more than ``most`` every n-th and the last."""
    points = [
        (line["step"], float(line[key]))
        for line in metrics
        if isinstance(line.get(key), int | float) and math.isfinite(line[key])
    ]
    stride = math.ceil(len(points) / most)
    return points if stride <= 1 else [*points[:-1:stride], points[-1]]


def _draw(title: str, series: dict[str, list[tuple[int, float]]]) -> str:
    with canvas(title, "step", len(series)) as drawn:
        for number, (key, points) in enumerate(series.items()):
            steps, values = zip(*points, strict=True)
            colour = SERIES[number % len(SERIES)]
            marker = "o" if len(points) == 1 else None
            drawn.axes.plot(steps, values, color=colour, linewidth=1.6, marker=marker, label=key)
    return drawn.svg
