"""Plot features in two dimensions, one point per image, coloured by class."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from torch import Tensor
from torch.nn import functional

from rsa_eval.evaluators.diagnostics.settings import EmbeddingConfig
from rsa_eval.evaluators.shared.figures import (
    CLASS_COLOURS,
    CLASS_MARKERS,
    GREY,
    INK,
    LINE,
    drawing,
    short_name,
)

_MOST_COLOURED = len(CLASS_COLOURS)

_POINT: dict[str, Any] = {"alpha": 0.8, "edgecolors": "white", "linewidths": 0.3}

Points = npt.NDArray[np.float64]


def embed(features: Tensor, config: EmbeddingConfig, seed: int) -> Points:
    """Normalise features and project them to the plane.

    Args:
        features: Any norm, (N, D), N at least 4.
        config: Method and perplexity.
        seed: Seeds the method.

    Returns:
        Coordinates, (N, 2); their scale and orientation are arbitrary.
    """
    unit = functional.normalize(features.double(), dim=1).numpy()
    if config.method == "pca":
        method: Any = PCA(n_components=2, svd_solver="full")
    else:
        perplexity = min(config.perplexity, (len(unit) - 1) / 3)
        method = TSNE(n_components=2, perplexity=perplexity, init="pca", random_state=seed)
    points: Points = method.fit_transform(unit).astype(np.float64)
    return points


def coloured_classes(labels: npt.NDArray[np.int64], seed: int) -> list[int]:
    """Return the classes to colour: all, or a random choice of as many as there are colours."""
    present = np.unique(labels)
    if len(present) > _MOST_COLOURED:
        generator = np.random.default_rng(seed)
        present = np.sort(generator.choice(present, _MOST_COLOURED, replace=False))
    return [int(label) for label in present]


def draw_embedding(
    points: Points,
    labels: npt.NDArray[np.int64] | None,
    class_names: Sequence[str],
    title: str,
    seed: int,
    path: Path,
) -> None:
    """Plot the points, with a colour and a marker for each of at most ten classes.

    Args:
        points: (N, 2).
        labels: Class indices, (N,); None draws all points alike.
        class_names: By class index.
        title: Title of the plot.
        seed: Decides which classes are coloured if there are more than ten.
        path: PNG to write.
    """
    coloured = [] if labels is None else coloured_classes(labels, seed)
    num_classes = 0 if labels is None else len(np.unique(labels))
    if num_classes > len(coloured):
        title += f"\n{len(coloured)} of {num_classes} classes, drawn at random, in colour"
    size = 14 if len(points) > 1000 and num_classes == len(coloured) else 24
    with drawing(7.6, 6.0, path) as figure:
        axes = figure.add_subplot()
        axes.set_title(title, fontsize=10)
        if labels is None:
            x, y = points.T
            axes.scatter(x, y, color=CLASS_COLOURS[0], s=size, **_POINT)
        else:
            _draw_classes(axes, points, labels, class_names, coloured, size)
            figure.legend(loc="outside right upper", frameon=False, labelcolor=INK, markerscale=1.4)
        _frame(axes)


def _draw_classes(
    axes: Axes,
    points: Points,
    labels: npt.NDArray[np.int64],
    class_names: Sequence[str],
    coloured: list[int],
    size: int,
) -> None:
    others = ~np.isin(labels, coloured)
    if others.any():
        x, y = points[others].T
        axes.scatter(x, y, s=size / 3, color=GREY, linewidths=0, label="other classes")
    for label, colour, marker in zip(coloured, CLASS_COLOURS, CLASS_MARKERS, strict=False):
        x, y = points[labels == label].T
        axes.scatter(
            x,
            y,
            s=1.7 * size if marker == "*" else size,
            marker=marker,
            color=colour,
            label=short_name(class_names[label]),
            **_POINT,
        )


def _frame(axes: Axes) -> None:
    axes.set_aspect("equal", adjustable="datalim")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_color(LINE)
