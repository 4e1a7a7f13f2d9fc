"""Plot accuracy against labels per class."""

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator

from rsa_eval.campaigns.label_curve.results import LabelCurves, ModelCurve
from rsa_eval.campaigns.label_curve.text import model_name
from rsa_eval.evaluators.shared.figures import (
    CLASS_COLOURS,
    CLASS_MARKERS,
    INK,
    LINE,
    drawing,
    short_name,
)

_LONGEST_NAME = 48


def draw_curves(curves: LabelCurves, path: Path) -> None:
    """Draw a line with a band per model, the 95 % interval, over a logarithmic axis of labels.

    Args:
        curves: The curves.
        path: PNG to write.
    """
    with drawing(6.4, 4.4 + 0.12 * len(curves.curves), path) as figure:
        axes = figure.add_subplot()
        for place, curve in enumerate(curves.curves):
            _draw(axes, curve, place)
        sizes = curves.plan.sizes
        axes.set_xscale("log")
        axes.set_xticks([size.labels_per_class for size in sizes], [size.name for size in sizes])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlabel("labels per class")
        axes.set_ylabel("top-1 (%), with 95 % interval")
        axes.grid(color=LINE, linewidth=0.6)
        axes.spines[:].set_visible(False)
        figure.legend(loc="outside lower left", frameon=False, labelcolor=INK, fontsize=8)


def _draw(axes: Axes, curve: ModelCurve, place: int) -> None:
    colour = CLASS_COLOURS[place % len(CLASS_COLOURS)]
    labels = [point.size.labels_per_class for point in curve.points]
    low, high = zip(*[(p.interval.low, p.interval.high) for p in curve.points], strict=True)
    axes.fill_between(labels, low, high, color=colour, alpha=0.18, linewidth=0)
    axes.plot(
        labels,
        [point.top1 for point in curve.points],
        color=colour,
        marker=CLASS_MARKERS[place % len(CLASS_MARKERS)],
        markersize=5,
        linestyle="-" if curve.model.kind == "checkpoint" else "--",
        label=short_name(model_name(curve.model), _LONGEST_NAME),
    )
