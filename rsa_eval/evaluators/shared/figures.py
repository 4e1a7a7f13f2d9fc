"""Shared style of the plots: colour-blind-safe colours, literal text, PNG output."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

INK = "#1c2430"
SOFT = "#5d6878"
LINE = "#e2e6ec"
GREY = "#c3cad4"
# Okabe & Ito's blue and vermillion; a mark always repeats the meaning of the colour.
RIGHT, WRONG = "#0072B2", "#D55E00"
# Paul Tol's "muted" scheme and black; used with a marker per class.
CLASS_COLOURS = (
    "#332288",
    "#88CCEE",
    "#44AA99",
    "#117733",
    "#999933",
    "#DDCC77",
    "#CC6677",
    "#882255",
    "#AA4499",
    "#000000",
)
CLASS_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">")


@contextmanager
def drawing(width: float, height: float, path: Path, dots_per_inch: int = 150) -> Iterator[Figure]:
    """Yield an empty figure and save it as PNG if the block succeeds.

    Text is literal: a class named ``$x$`` is not typeset as a formula.

    Args:
        width: In inches.
        height: In inches.
        path: File to write.
        dots_per_inch: Resolution.
    """
    with mpl.rc_context(
        {
            "text.parse_math": False,
            "font.size": 9,
            "text.color": INK,
            "axes.labelcolor": INK,
            "axes.titlecolor": INK,
            "axes.edgecolor": LINE,
            "xtick.color": SOFT,
            "ytick.color": SOFT,
        }
    ):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(figure)
        yield figure
        figure.savefig(path, format="png", dpi=dots_per_inch, facecolor="white")


def short_name(name: str, length: int = 18) -> str:
    """Return a class name on one line, truncated to ``length`` characters."""
    line = " ".join(name.split())
    return line if len(line) <= length else f"{line[: length - 1].rstrip()}…"
