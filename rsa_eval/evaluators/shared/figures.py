"""How pictures look: sizes, colours that colour-blind readers tell apart, text from data sets."""

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
# Okabe & Ito's blue and vermillion; a mark always says the same in another way.
RIGHT, WRONG = "#0072B2", "#D55E00"
# Paul Tol's "muted" scheme and black; used with a shape per class.
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
    """Yield an empty figure, which is written as PNG if the block succeeds.

    Text is taken literally: a class named ``$x$`` is no formula.

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
    """Return a class's name on one line, cut to ``length`` characters."""
    line = " ".join(name.split())
    return line if len(line) <= length else f"{line[: length - 1].rstrip()}…"
