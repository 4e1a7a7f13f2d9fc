"""Confusion matrix: counts, plot and table."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.colors import Normalize, PowerNorm
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from rsa_eval.evaluators.shared.figures import SOFT, WRONG, drawing, short_name

# The axes have no room for the names of more classes than this.
_MOST_NAMED = 25
_LISTED = 12


@dataclass(frozen=True)
class Mistake:
    """An off-diagonal cell: images of one class predicted as another."""

    true: str
    predicted: str
    count: int
    num_images: int
    """Of the true class."""


def count_confusions(labels: Tensor, predictions: Tensor, num_classes: int) -> Tensor:
    """Count images by true class (row) and predicted class (column), int64 (C, C)."""
    cells = labels * num_classes + predictions
    return torch.bincount(cells, minlength=num_classes**2).reshape(num_classes, num_classes)


def most_frequent_mistakes(
    counts: Tensor, class_names: Sequence[str], most: int = _LISTED
) -> list[Mistake]:
    """List the largest off-diagonal counts; ties go to the first in the matrix."""
    mistakes = counts.clone().fill_diagonal_(0).flatten()
    order = mistakes.argsort(descending=True, stable=True)[:most].tolist()
    num_images = counts.sum(dim=1).tolist()
    return [
        Mistake(class_names[true], class_names[predicted], int(mistakes[cell]), num_images[true])
        for cell in order
        if mistakes[cell] > 0
        for true, predicted in [divmod(cell, len(class_names))]
    ]


def confusion_rows(counts: Tensor, class_names: Sequence[str]) -> list[list[object]]:
    """Return the nonzero cells as (true class, predicted class, images), row by row."""
    return [
        [class_names[true], class_names[predicted], int(counts[true, predicted])]
        for true, predicted in counts.nonzero().tolist()
    ]


def draw_confusions(counts: Tensor, class_names: Sequence[str], title: str, path: Path) -> None:
    """Plot the matrix in percent of each true class, with the most frequent mistakes beside it.

    Args:
        counts: As returned by ``count_confusions``.
        class_names: By class index.
        title: Names the images and the classifier.
        path: PNG to write.
    """
    named = len(class_names) <= _MOST_NAMED
    side = max(4.6, 1.4 + 0.36 * len(class_names)) if named else 6.6
    with drawing(side + 4.2, side, path) as figure:
        figure.suptitle(title, fontsize=10)
        panels = figure.add_gridspec(1, 2, width_ratios=[side + 1.0, 3.2])
        left, right = figure.add_subfigure(panels[0]), figure.add_subfigure(panels[1])
        matrix = left.add_subplot()
        shares = 100 * counts / counts.sum(dim=1, keepdim=True).clamp_min(1)
        # With a pixel or two per class, the colour scale favours small shares.
        norm = Normalize(0, 100) if named else PowerNorm(0.5, 0, 100)
        image = matrix.imshow(shares.numpy(), cmap="Blues", norm=norm)
        bar = left.colorbar(image, shrink=0.6, label="share of the true class's images (%)")
        bar.outline.set_visible(False)
        _label_matrix(matrix, shares, class_names, named=named)
        _draw_mistakes(right.add_subplot(), most_frequent_mistakes(counts, class_names))


def _label_matrix(axes: Axes, shares: Tensor, class_names: Sequence[str], *, named: bool) -> None:
    unit = "" if named else " (index)"
    axes.set_xlabel(f"predicted class{unit}")
    axes.set_ylabel(f"true class{unit}")
    axes.tick_params(length=0 if named else 3)
    axes.spines[:].set_visible(False)
    if not named:
        return
    names = [short_name(name, 14) for name in class_names]
    if max(map(len, names)) > 3:
        axes.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor")
    else:
        axes.set_xticks(range(len(names)), names)
    axes.set_yticks(range(len(names)), names)
    for true, predicted in shares.ge(0.5).nonzero().tolist():
        share = float(shares[true, predicted])
        axes.text(
            predicted,
            true,
            f"{share:.0f}",
            ha="center",
            va="center",
            fontsize=8,
            color="white" if share > 55 else "black",
        )


def _draw_mistakes(axes: Axes, mistakes: Sequence[Mistake]) -> None:
    axes.set_title("most frequent mistakes", fontsize=9)
    axes.spines[:].set_visible(False)
    axes.set_yticks([])
    axes.tick_params(length=0)
    if not mistakes:
        axes.set_xticks([])
        axes.text(0.5, 0.5, "none", ha="center", transform=axes.transAxes, color=SOFT)
        return
    places = range(len(mistakes))
    axes.barh(places, [mistake.count for mistake in mistakes], height=0.3, color=WRONG)
    axes.set_xlim(0, 1.02 * mistakes[0].count)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.set_ylim(_LISTED - 0.4, -0.8)
    axes.set_xlabel("test images")
    for place, mistake in zip(places, mistakes, strict=True):
        text = f"{short_name(mistake.true)} → {short_name(mistake.predicted)}"
        axes.text(
            0, place - 0.22, f"{text}: {mistake.count} of {mistake.num_images}", va="bottom",
            fontsize=8,
        )  # fmt: skip
