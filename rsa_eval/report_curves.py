"""A run's log to small pictures: SVG that takes its colours from the page around it."""

import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

# Colours that no picture uses; the page's style gives each variable a light and a dark value.
_COLOURS = {
    "#010101": "var(--ink)",
    "#020202": "var(--line)",
    "#030301": "var(--series-1)",
    "#030302": "var(--series-2)",
    "#030303": "var(--series-3)",
    "#030304": "var(--series-4)",
    "#030305": "var(--series-5)",
    "#030306": "var(--series-6)",
}
_INK, _LINE, *_SERIES = _COLOURS
_MOST_POINTS = 400


@dataclass(frozen=True)
class Panel:
    """One picture: what it shows, over optimizer steps."""

    title: str
    keys: tuple[str, ...]
    """Metrics drawn; those of a key ending in * are all that begin so."""


_PANELS = (
    Panel("loss", ("loss*",)),
    Panel("beta", ("beta",)),
    Panel("EMA momentum", ("ema_momentum",)),
    Panel("learning rate", ("lr",)),
    Panel("standard deviation of projections", ("projection_std",)),
    Panel("gradient norm", ("grad_norm",)),
    Panel("online kNN, held-out training images (%)", ("knn_top1",)),
    Panel("average precision (%)", ("bbox_AP", "segm_AP")),
)


@dataclass(frozen=True)
class Picture:
    """A drawn panel."""

    title: str
    svg: str
    """Markup to stand in a page; holds no text from outside but metric names, escaped."""


def draw_curves(metrics: Sequence[dict[str, Any]]) -> list[Picture]:
    """Draw the panels a log has numbers for.

    Args:
        metrics: Lines of a ``metrics.jsonl``; curves of more than 400 points are thinned evenly,
            the last one kept.
    """
    pictures = []
    for panel in _PANELS:
        series = {key: _points(metrics, key) for key in _matching(metrics, panel.keys)}
        series = {key: points for key, points in series.items() if points}
        if series:
            pictures.append(Picture(panel.title, _draw(panel.title, series)))
    return pictures


def _matching(metrics: Sequence[dict[str, Any]], patterns: tuple[str, ...]) -> list[str]:
    names = dict.fromkeys(name for line in metrics for name in line)
    return [
        name
        for pattern in patterns
        for name in names
        if name == pattern or (pattern.endswith("*") and name.startswith(pattern[:-1]))
    ]


def _points(metrics: Sequence[dict[str, Any]], key: str) -> list[tuple[int, float]]:
    points = [
        (line["step"], float(line[key]))
        for line in metrics
        if isinstance(line.get(key), int | float) and math.isfinite(line[key])
    ]
    stride = math.ceil(len(points) / _MOST_POINTS)
    return points if stride <= 1 else [*points[:-1:stride], points[-1]]


def _draw(title: str, series: dict[str, list[tuple[int, float]]]) -> str:
    # Text stays text, in the page's own font; ids are derived from the title alone.
    with mpl.rc_context(
        {
            "svg.fonttype": "none",
            "svg.hashsalt": title,
            "font.size": 9,
            "text.parse_math": False,
        }
    ):
        figure = Figure(figsize=(3.6, 2.3 + 0.1 * len(series)), layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        for number, (key, points) in enumerate(series.items()):
            steps, values = zip(*points, strict=True)
            colour = _SERIES[number % len(_SERIES)]
            marker = "o" if len(points) == 1 else None
            axes.plot(steps, values, color=colour, linewidth=1.6, marker=marker, label=key)
        axes.set_xlabel("step", color=_INK)
        axes.tick_params(colors=_INK, length=0)
        axes.grid(color=_LINE, linewidth=0.6)
        axes.set_axisbelow(True)
        axes.ticklabel_format(useOffset=False)
        for spine in axes.spines.values():
            spine.set_visible(False)
        if len(series) > 1:
            figure.legend(
                loc="outside lower left", ncols=2, frameon=False, labelcolor=_INK, fontsize=8
            )
        text = io.StringIO()
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(text, format="svg", transparent=True, metadata=nothing)
    return _inline(text.getvalue(), title)


def _inline(svg: str, title: str) -> str:
    """Strip what only a stand-alone file needs, and let the page choose the colours."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    svg = re.sub(r'\s(?:xmlns(?::xlink)?|width|height)="[^"]*"', "", svg, count=4)
    svg = svg.replace("<svg", f'<svg role="img" aria-label="{title} over steps"', 1)
    for placeholder, variable in _COLOURS.items():
        svg = svg.replace(placeholder, variable)
    return re.sub(r"font: ([\d.]+)px [^;\"]*", r"font: \1px var(--font)", svg)
