"""Plot the differences of a comparison with their intervals, a row per evaluation."""

from pathlib import Path

from rsa_eval.evaluators.shared.figures import GREY, RIGHT, SOFT, WRONG, drawing
from rsa_eval.verdicts.compare import Comparison
from rsa_eval.verdicts.words import signed

_COLOURS = {"better": RIGHT, "worse": WRONG}


def draw_differences(comparison: Comparison, path: Path) -> None:
    """Plot a comparison as PNG; open marks are differences that are not shown."""
    verdicts = comparison.verdicts
    with drawing(7.0, 1.3 + 0.36 * len(verdicts), path) as figure:
        figure.suptitle(f"A: {comparison.first}    B: {comparison.second}", fontsize=9)
        axes = figure.add_subplot()
        axes.axvline(0, color=SOFT, linewidth=1)
        if comparison.margin is not None:
            axes.axvspan(-comparison.margin, comparison.margin, color=GREY, alpha=0.4, linewidth=0)
        for row, verdict in enumerate(verdicts):
            difference, colour = verdict.difference, _COLOURS.get(verdict.decision, SOFT)
            interval = difference.interval
            axes.plot([interval.low, interval.high], [row, row], color=colour, linewidth=2)
            face = colour if verdict.decision in _COLOURS else "white"
            axes.plot(difference.value, row, "o", color=colour, markerfacecolor=face)
            axes.annotate(
                f"{signed(difference.value)}  {verdict.decision}",
                (interval.high, row),
                textcoords="offset points",
                xytext=(6, 0),
                va="center",
                fontsize=8,
            )
        axes.set_yticks(
            range(len(verdicts)), [f"{verdict.title}, {verdict.metric}" for verdict in verdicts]
        )
        axes.set_ylim(len(verdicts) - 0.5, -0.5)
        axes.margins(x=0.25)
        axes.set_xlabel("A − B in points, with 95 % intervals")
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
