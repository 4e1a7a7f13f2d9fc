"""Draw small SVG plots that take their colours and font from the surrounding page."""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from html import escape

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

# Placeholder colours; the page's style gives each variable a light and a dark value.
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
_INK, _LINE, *SERIES = _COLOURS


@dataclass(frozen=True)
class Picture:
    """A plot with its title."""

    title: str
    svg: str
    """Markup to embed in a page; untrusted text in it is escaped."""


@dataclass
class Canvas:
    """An empty plot to draw on."""

    axes: Axes
    svg: str = field(default="", init=False)
    """Set when the block ends."""


@contextmanager
def canvas(title: str, x_label: str, num_series: int) -> Iterator[Canvas]:
    """Yield an empty plot; after the block its ``svg`` contains the markup.

    Args:
        title: Title, also used as the accessible label.
        x_label: Name of the horizontal axis.
        num_series: More than one adds a legend below, from the series' labels.
    """
    # Text stays text, in the page's font; ids are derived from the title and the content.
    with mpl.rc_context(
        {
            "svg.fonttype": "none",
            "svg.hashsalt": title,
            "font.size": 9,
            "text.parse_math": False,
        }
    ):
        figure = Figure(figsize=(3.6, 2.3 + 0.1 * num_series), layout="constrained")
        FigureCanvasSVG(figure)
        drawn = Canvas(figure.add_subplot())
        yield drawn
        _finish(drawn.axes, x_label)
        if num_series > 1:
            figure.legend(
                loc="outside lower left", ncols=2, frameon=False, labelcolor=_INK, fontsize=8
            )
        text = io.StringIO()
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(text, format="svg", transparent=True, metadata=nothing)
    drawn.svg = _inline(text.getvalue(), f"{title} over {x_label}")


def _finish(axes: Axes, x_label: str) -> None:
    axes.set_xlabel(x_label, color=_INK)
    axes.tick_params(colors=_INK, length=0)
    axes.grid(color=_LINE, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.ticklabel_format(useOffset=False)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _inline(svg: str, label: str) -> str:
    """Strip markup that only a stand-alone file needs, and let the page choose the colours."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    svg = re.sub(r'\s(?:xmlns(?::xlink)?|width|height)="[^"]*"', "", svg, count=4)
    svg = svg.replace("<svg", f'<svg role="img" aria-label="{escape(label)}"', 1)
    for placeholder, variable in _COLOURS.items():
        svg = svg.replace(placeholder, variable)
    return re.sub(r"font: ([\d.]+)px [^;\"]*", r"font: \1px var(--font)", svg)
