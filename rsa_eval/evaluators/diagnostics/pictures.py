"""Draw the diagnostics' plots and tables."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from rsa_eval.evaluators.diagnostics.confusion import confusion_rows, draw_confusions
from rsa_eval.evaluators.diagnostics.embedding_plot import draw_embedding, embed
from rsa_eval.evaluators.diagnostics.retrieval_page import (
    draw_retrieval,
    retrieval_rows,
    write_retrieval_page,
)
from rsa_eval.evaluators.diagnostics.settings import DiagnosticsConfig
from rsa_eval.evaluators.shared.neighbours import Neighbours
from rsa_eval.features.labelled import LabelledFeatures
from rsa_eval.records.class_predictions import ClassPredictions
from rsa_pretrain.data.image_set import ImageSet
from rsa_pretrain.plumbing.text_table import render_table

# A report embeds the plot; the page beside it has all queries.
_MOST_ROWS_DRAWN = 8
_OF_CLASSES = {
    "Confusion matrix": "confusion.png",
    "Confusion matrix as a table": "confusion.csv",
}
_OF_ALL = {
    "Nearest neighbours": "neighbours.png",
    "Nearest neighbours as a page": "neighbours.html",
    "Features in two dimensions": "embedding.png",
}
PICTURE_FILES = frozenset((_OF_CLASSES | _OF_ALL).values())
"""Every file that may be written."""


@dataclass(frozen=True)
class ClassFindings:
    """Findings that need class labels."""

    names: list[str]
    """Classes of the training images; undecodable bytes of a folder's name become ?."""
    confusions: Tensor
    """Image counts by true and predicted class, (C, C)."""
    predictions: ClassPredictions
    """The vote's answers, named ``vote``."""

    @property
    def top1(self) -> float:
        """Percentage of images the vote classifies correctly."""
        return 100 * float(self.confusions.trace()) / int(self.confusions.sum())


@dataclass(frozen=True)
class Findings:
    """Data to plot."""

    train: ImageSet
    images: ImageSet
    """The analysed images."""
    features: LabelledFeatures
    """Features of ``images``."""
    neighbours: Neighbours
    """Neighbours of each of ``images`` among the training images."""
    classes: ClassFindings | None
    """None if some images have no class."""

    @property
    def files(self) -> dict[str, str]:
        """Titles of the plots and tables → their files."""
        return _OF_ALL if self.classes is None else _OF_CLASSES | _OF_ALL


def draw_rows(count: int, num_images: int, seed: int) -> Tensor:
    """Draw ``count`` image indices, in increasing order; all if there are fewer."""
    if count >= num_images:
        return torch.arange(num_images)
    rows = np.random.default_rng(seed).choice(num_images, count, replace=False)
    return torch.from_numpy(np.sort(rows))


def draw_pictures(findings: Findings, config: DiagnosticsConfig, folder: Path) -> None:
    """Write every file of ``findings.files`` to a folder."""
    what = f"{findings.images.name} {'training' if config.split == 'train' else 'test'} images"
    if findings.classes is not None:
        _draw_confusions(findings, findings.classes, config, what, folder)
    _draw_neighbours(findings, config, what, folder)
    _draw_embedding(findings, config, what, folder)


def _draw_confusions(
    findings: Findings, classes: ClassFindings, config: DiagnosticsConfig, what: str, folder: Path
) -> None:
    title = f"{config.vote.label} vote, {classes.top1:.1f} % of {len(findings.images)} {what} right"
    draw_confusions(classes.confusions, classes.names, title, folder / "confusion.png")
    columns = ("true", "predicted", "images")
    table = render_table(columns, confusion_rows(classes.confusions, classes.names), "csv")
    (folder / "confusion.csv").write_text(f"{table}\n", encoding="utf-8")


def _draw_neighbours(
    findings: Findings, config: DiagnosticsConfig, what: str, folder: Path
) -> None:
    queries = draw_rows(config.num_queries, len(findings.images), config.seed)
    neighbours = Neighbours(
        findings.neighbours.similarities[queries, : config.num_neighbours],
        findings.neighbours.indices[queries, : config.num_neighbours],
    )
    names = None if findings.classes is None else findings.classes.names
    rows = retrieval_rows(findings.images, findings.train, names, queries.tolist(), neighbours)
    others = " other" if config.split == "train" else ""
    num_voters = len(findings.train) - (config.split == "train")
    beside = (
        f"of {len(findings.images)} {what} beside the nearest of {num_voters}{others} training "
        "images"
    )
    drawn = rows[:_MOST_ROWS_DRAWN]
    draw_retrieval(drawn, f"{len(drawn)} {beside}", folder / "neighbours.png")
    write_retrieval_page(rows, f"{len(rows)} {beside}", folder / "neighbours.html")


def _draw_embedding(findings: Findings, config: DiagnosticsConfig, what: str, folder: Path) -> None:
    rows = draw_rows(config.embedding.num_images, len(findings.images), config.seed)
    points = embed(findings.features.features[rows], config.embedding, config.seed)
    method = {"tsne": "t-SNE", "pca": "Principal components"}[config.embedding.method]
    title = f"{method} of the features of {len(rows)} {what}"
    path = folder / "embedding.png"
    if findings.classes is None:
        draw_embedding(points, None, (), title, config.seed, path)
    else:
        labels = findings.features.labels[rows].numpy()
        draw_embedding(points, labels, findings.classes.names, title, config.seed, path)
