"""What the features look like, in numbers and in pictures, as an evaluation."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rsa_eval.confusion import (
    confusion_rows,
    count_confusions,
    draw_confusions,
    most_frequent_mistakes,
)
from rsa_eval.diagnostics import alignment, rank_me, uniformity
from rsa_eval.diagnostics_config import RANKME_NUM_IMAGES, DiagnosticsConfig
from rsa_eval.embedding_plot import draw_embedding, embed
from rsa_eval.evaluators.base import Evaluator, Workspace, describe_images, open_splits, place
from rsa_eval.features import LabelledFeatures, forward_frozen, stored_features
from rsa_eval.frozen import frozen
from rsa_eval.neighbours import Neighbours
from rsa_eval.protocols import common_deviations
from rsa_eval.record import Metric, Record, make_record
from rsa_eval.retrieval import find_neighbours, predict
from rsa_eval.retrieval_page import draw_retrieval, retrieval_rows, write_retrieval_page
from rsa_eval.share import own_share
from rsa_eval.subject import Subject
from rsa_pretrain.atomic_files import atomic_folder
from rsa_pretrain.augment import Views
from rsa_pretrain.collapse import projection_std
from rsa_pretrain.distributed import is_main
from rsa_pretrain.errors import UserError
from rsa_pretrain.image_set import ImageSet
from rsa_pretrain.loader import AugmentedImages, iterate, make_loader
from rsa_pretrain.progress import progress_bar
from rsa_pretrain.text_table import render_table

_FEWEST_TEST_IMAGES = 4
# A report embeds the picture; the page beside it has all queries.
_MOST_ROWS_DRAWN = 8
_FILES = {
    "Confusion matrix": "confusion.png",
    "Confusion matrix as a table": "confusion.csv",
    "Nearest neighbours": "neighbours.png",
    "Nearest neighbours as a page": "neighbours.html",
    "Features in two dimensions": "embedding.png",
}


@dataclass(frozen=True)
class _Findings:
    """What the pictures are drawn from."""

    train: ImageSet
    test: ImageSet
    class_names: list[str]
    """Of the training images; what is no text (a folder's name may be any bytes) is a ?."""
    features: LabelledFeatures
    """Of the test images."""
    neighbours: Neighbours
    """Of all test images among the training images."""
    confusions: Tensor
    """Images by true and predicted class, (C, C)."""

    @property
    def top1(self) -> float:
        """Percentage of test images that the vote gets right."""
        return 100 * float(self.confusions.trace()) / len(self.test)


def evaluate_diagnostics(
    subject: Subject, config: DiagnosticsConfig, workspace: Workspace
) -> Record:
    """Measure and draw the features of the test images.

    Raises:
        UserError: If the data or the device cannot be used, or something else lies where the
            pictures go.
    """
    started = time.perf_counter()
    workspace.check_artifacts(_FILES.values())
    device = place(subject, config)
    train, test = open_splits(config)
    if len(test) < _FEWEST_TEST_IMAGES:
        raise UserError(
            f"diagnostics need {_FEWEST_TEST_IMAGES} test images or more, found {len(test)}"
        )
    with frozen(subject.backbone):
        bank = stored_features(subject, train, config, "train features")
        features = stored_features(subject, test, config, "test features")
        views = _view_features(subject, test, config, device)
    metrics = _measure(features.features, views, config, device)
    neighbours = find_neighbours(
        bank.features,
        features.features,
        max(config.vote.k, config.num_neighbours),
        config.memory_budget_mib,
        device,
        own_share(),
    )
    predictions = predict(neighbours, bank.labels, config.vote, len(train.class_names))
    confusions = count_confusions(features.labels, predictions, len(train.class_names))
    class_names = [name.encode(errors="replace").decode() for name in train.class_names]
    findings = _Findings(train, test, class_names, features, neighbours, confusions)
    artifacts = _draw(findings, config, workspace)
    return make_record(
        kind="diagnostics",
        protocol=config.protocol,
        metrics=metrics,
        headline="rankme",
        num_samples=len(test),
        data_set=config.data.name,
        model=subject.model,
        config=config,
        seeds=[config.seed],
        device=device,
        seconds=time.perf_counter() - started,
        details=_details(findings, config),
        deviations=diagnostics_deviations(config, len(test)),
        artifacts=artifacts,
    )


def diagnostics_deviations(config: DiagnosticsConfig, num_test_images: int) -> list[str]:
    """List the departures of the rank from RankMe's settings, and of the images, in words."""
    num_images = min(config.num_images, num_test_images)
    deviations = common_deviations(config)
    if num_images != RANKME_NUM_IMAGES:
        deviations.append(f"rank of {num_images} images (RankMe: {RANKME_NUM_IMAGES})")
    return deviations


def _draw_rows(count: int, num_images: int, seed: int) -> Tensor:
    """Draw ``count`` of the images, in their order; all if there are fewer."""
    if count >= num_images:
        return torch.arange(num_images)
    rows = np.random.default_rng(seed).choice(num_images, count, replace=False)
    return torch.from_numpy(np.sort(rows))


def _view_features(
    subject: Subject, test: ImageSet, config: DiagnosticsConfig, device: torch.device
) -> dict[str, Tensor]:
    """Return the features of two weak and two aggressive views, (N, D) by the view's name."""
    size = config.data.image_size
    views = Views("multi_stage", config.views, size, subject.mean, subject.std)
    rows = _draw_rows(config.num_view_images, len(test), config.seed).tolist()
    # Each image makes four views, so a quarter of the images make a batch.
    keys = [(0, row) for row in rows]
    width = max(1, config.batch_size // len(views.names))
    loader = make_loader(
        AugmentedImages(test, views, config.seed),
        [keys[start : start + width] for start in range(0, len(keys), width)],
        config.data.num_workers,
        device,
    )
    parts: list[list[Tensor]] = []
    with progress_bar(len(keys), "views", "img") as bar:
        for batch in iterate(loader):
            parts.append([forward_frozen(subject.backbone, view, config).cpu() for view in batch])
            bar.update(len(batch[0]))
    columns = [torch.cat(column) for column in zip(*parts, strict=True)]
    if not all(column.isfinite().all() for column in columns):
        raise UserError(
            f"features of augmented views are not finite at precision {config.precision}; set "
            "precision=fp32, or look at how the weights were trained"
        )
    return dict(zip(views.names, columns, strict=True))


def _measure(
    features: Tensor, views: dict[str, Tensor], config: DiagnosticsConfig, device: torch.device
) -> dict[str, Metric]:
    sample = features[_draw_rows(config.num_images, len(features), config.seed)].to(device)
    return {
        "rankme": Metric(value=rank_me(sample), unit="dimensions"),
        "feature_std": Metric(value=float(projection_std(sample)), unit="1/√D"),
        "uniformity": Metric(value=uniformity(sample), unit="log"),
        "alignment": Metric(value=alignment(views["v_a"], views["v_a'"]), unit="squared distance"),
        "alignment_weak": Metric(
            value=alignment(views["v_w"], views["v_w'"]), unit="squared distance"
        ),
    }


def _details(findings: _Findings, config: DiagnosticsConfig) -> dict[str, Any]:
    num_test_images, width = len(findings.test), findings.features.features.shape[1]
    return {
        "feature_width": width,
        "num_images": min(config.num_images, num_test_images),
        "num_view_images": min(config.num_view_images, num_test_images),
        "num_embedded_images": min(config.embedding.num_images, num_test_images),
        "vote": config.vote.label,
        "vote_top1": findings.top1,
        "most_frequent_mistakes": [
            {"true": mistake.true, "predicted": mistake.predicted, "count": mistake.count}
            for mistake in most_frequent_mistakes(findings.confusions, findings.class_names)
        ],
        "images": describe_images(findings.train, findings.test),
    }


def _draw(findings: _Findings, config: DiagnosticsConfig, workspace: Workspace) -> dict[str, str]:
    """Write all pictures at once, and return what each shows and where it lies."""
    folder = workspace.artifacts
    if is_main():
        with atomic_folder(folder) as temporary:
            _draw_confusions(findings, config, temporary)
            _draw_neighbours(findings, config, temporary)
            _draw_embedding(findings, config, temporary)
    return {what: f"{folder.name}/{file}" for what, file in _FILES.items()}


def _draw_confusions(findings: _Findings, config: DiagnosticsConfig, folder: Path) -> None:
    classes = findings.class_names
    title = (
        f"{findings.test.name}: {config.vote.label} vote, {findings.top1:.1f} % of "
        f"{len(findings.test)} test images right"
    )
    draw_confusions(findings.confusions, classes, title, folder / "confusion.png")
    columns = ("true", "predicted", "images")
    table = render_table(columns, confusion_rows(findings.confusions, classes), "csv")
    (folder / "confusion.csv").write_text(f"{table}\n", encoding="utf-8")


def _draw_neighbours(findings: _Findings, config: DiagnosticsConfig, folder: Path) -> None:
    queries = _draw_rows(config.num_queries, len(findings.test), config.seed)
    neighbours = Neighbours(
        findings.neighbours.similarities[queries, : config.num_neighbours],
        findings.neighbours.indices[queries, : config.num_neighbours],
    )
    rows = retrieval_rows(
        findings.test, findings.train, findings.class_names, queries.tolist(), neighbours
    )
    beside = (
        f"of {len(findings.test)} {findings.test.name} test images beside the nearest of "
        f"{len(findings.train)} training images"
    )
    drawn = rows[:_MOST_ROWS_DRAWN]
    draw_retrieval(drawn, f"{len(drawn)} {beside}", folder / "neighbours.png")
    write_retrieval_page(rows, f"{len(rows)} {beside}", folder / "neighbours.html")


def _draw_embedding(findings: _Findings, config: DiagnosticsConfig, folder: Path) -> None:
    rows = _draw_rows(config.embedding.num_images, len(findings.test), config.seed)
    points = embed(findings.features.features[rows], config.embedding, config.seed)
    method = {"tsne": "t-SNE", "pca": "Principal components"}[config.embedding.method]
    draw_embedding(
        points,
        findings.features.labels[rows].numpy(),
        findings.class_names,
        f"{method} of the features of {len(rows)} {findings.test.name} test images",
        config.seed,
        folder / "embedding.png",
    )


EVALUATOR = Evaluator(
    config=DiagnosticsConfig,
    evaluate=evaluate_diagnostics,
    summary="measure and draw what features look like",
    measures=(
        "RankMe, standard deviation, uniformity and alignment of a frozen backbone's features, "
        "with a confusion matrix, nearest neighbours and a t-SNE picture"
    ),
    example_config="diagnostics/cifar10.yaml",
)
