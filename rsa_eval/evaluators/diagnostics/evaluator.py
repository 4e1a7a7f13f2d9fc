"""Evaluate the geometry of features, in numbers and plots."""

from typing import Any

import torch
from torch import Tensor

from rsa_eval.evaluators.diagnostics.confusion import count_confusions, most_frequent_mistakes
from rsa_eval.evaluators.diagnostics.measures import Measured, measure
from rsa_eval.evaluators.diagnostics.pictures import (
    PICTURE_FILES,
    ClassFindings,
    Findings,
    draw_pictures,
    draw_rows,
)
from rsa_eval.evaluators.diagnostics.retrieval import classify, find_neighbours
from rsa_eval.evaluators.diagnostics.settings import (
    RANKME_NUM_IMAGES,
    DiagnosticsConfig,
    DiagnosticsOptions,
)
from rsa_eval.evaluators.diagnostics.view_features import view_features
from rsa_eval.evaluators.knn.settings import KNNSetting
from rsa_eval.evaluators.shared.answers import kept_answers
from rsa_eval.evaluators.shared.deviations import common_deviations
from rsa_eval.evaluators.shared.labelled_images import (
    check_test_classes,
    describe_images,
    lack_of_classes,
)
from rsa_eval.evaluators.shared.neighbours import Neighbours
from rsa_eval.features.extract import stored_features
from rsa_eval.features.frozen import frozen
from rsa_eval.features.networks.spec import NetworkSpec, checkpoint_of
from rsa_eval.features.room import check_memory
from rsa_eval.features.share import own_share
from rsa_eval.features.subject import Subject, load_subject
from rsa_eval.records.record import Result
from rsa_eval.records.workspace import Workspace
from rsa_pretrain.data.image_set import ImageSet
from rsa_pretrain.data.open_images import open_images
from rsa_pretrain.plumbing.atomic_files import atomic_folder
from rsa_pretrain.plumbing.config.files import to_tree
from rsa_pretrain.plumbing.distributed import is_main
from rsa_pretrain.plumbing.errors import UserError

FEWEST_IMAGES = 4
"""The fewest images whose geometry is measured."""
_WITHOUT_CLASSES = (
    "vote, most frequent mistakes, confusion matrix, classes of neighbours and points"
)


def evaluate_diagnostics(
    subject: Subject, config: DiagnosticsConfig, workspace: Workspace
) -> Result:
    """Measure and plot the features of the test or training images.

    Findings that need classes are left out if some images have none, and the record says so.

    Raises:
        UserError: If the data cannot be used, or the plots' folder contains other files.
    """
    workspace.check_artifacts(PICTURE_FILES)
    train, images = _open(config)
    other = load_other(config)
    lack = lack_of_classes(train, images)
    if lack is None:
        check_test_classes(train, images)
    check_memory(subject, config, [train] if images is train else [train, images])
    with frozen(subject.backbone):
        bank = stored_features(subject, train, config, "train features")
        features = bank
        if images is not train:
            features = stored_features(subject, images, config, "test features")
        views = view_features(subject, images, config)
    rows = draw_rows(config.num_images, len(images), config.seed)
    sample = features.features[rows].to(subject.device)
    other_sample = None if other is None else _features_of(other, images, config)[rows].to(sample)
    measured = measure(sample, views, other_sample)
    neighbours = find_neighbours(
        bank.features,
        None if images is train else features.features,
        max(config.vote.k, config.num_neighbours),
        config.memory_budget_mib,
        subject.device,
        own_share(),
    )
    classes = None
    if lack is None:
        names = [name.encode(errors="replace").decode() for name in train.class_names]
        classes = find_classes(names, bank.labels, features.labels, neighbours, config.vote)
    findings = Findings(train, images, features.cpu(), neighbours, classes)
    return Result(
        metrics=measured.metrics,
        headline="rankme",
        num_samples=len(images),
        details=_details(findings, config, lack, measured, other),
        predictions=None if classes is None else classes.predictions,
        deviations=diagnostics_deviations(config, len(images)) + measured.deviations,
        artifacts=_draw(findings, config, workspace),
        test_keys=images.keys(),
    )


def _open(config: DiagnosticsConfig) -> tuple[ImageSet, ImageSet]:
    """Open the training images and the images to analyse; refuse too few."""
    images = train = open_images(config.data, "train")
    rest = ""
    if config.split == "test":
        try:
            images = open_images(config.data, "test")
        except UserError as error:
            raise UserError(f"{error}; or set split=train to analyse the training images") from None
        rest = f"; split=train analyses the {len(train)} training images"
    if len(images) < FEWEST_IMAGES:
        raise UserError(
            f"diagnostics need {FEWEST_IMAGES} images or more, found {len(images)} {config.split} "
            f"images{rest}"
        )
    return train, images


def find_classes(
    names: list[str], bank_labels: Tensor, labels: Tensor, neighbours: Neighbours, vote: KNNSetting
) -> ClassFindings:
    """Count the mistakes of a nearest-neighbour vote.

    Args:
        names: Names of the C classes.
        bank_labels: Class indices of the voters, int64 (M,).
        labels: Class indices of the images voted on, int64 (N,).
        neighbours: Each image's neighbours among the voters.
        vote: The vote.
    """
    answers = classify(neighbours, bank_labels, labels, vote, len(names))
    confusions = count_confusions(labels, torch.from_numpy(answers.predicted), len(names))
    return ClassFindings(names, confusions, kept_answers(labels, {"vote": [answers]}, len(names)))


def describe_mistakes(classes: ClassFindings, vote: KNNSetting) -> dict[str, Any]:
    """Describe a vote and its most frequent mistakes, for a record's details."""
    mistakes = most_frequent_mistakes(classes.confusions, classes.names)
    return {
        "vote": vote.label,
        "vote_top1": classes.top1,
        "most_frequent_mistakes": [
            {"true": mistake.true, "predicted": mistake.predicted, "count": mistake.count}
            for mistake in mistakes
        ],
    }


def diagnostics_deviations(config: DiagnosticsConfig, num_found: int) -> list[str]:
    """List the departures in images and from RankMe's settings."""
    deviations = common_deviations(config)
    if config.split == "train":
        deviations.append("training images looked at (protocol: test images)")
    return deviations + rank_deviations(config, num_found)


def rank_deviations(options: DiagnosticsOptions, num_found: int) -> list[str]:
    """List the departures from RankMe's settings."""
    num_images = min(options.num_images, num_found)
    if num_images == RANKME_NUM_IMAGES:
        return []
    return [f"rank of {num_images} images (RankMe: {RANKME_NUM_IMAGES})"]


def load_other(config: DiagnosticsConfig) -> Subject | None:
    """Load the checkpoint to compare with, whose network may be another; None if there is none.

    Raises:
        UserError: If it cannot be used.
    """
    if config.compare_to is None:
        return None
    return load_subject(config.compare_to, _settings_of_other(config, config.compare_to))


def _settings_of_other(config: DiagnosticsConfig, compare_to: str) -> DiagnosticsConfig:
    """Leave out the settings that a network of the other one's kind does not have."""
    is_foreign = isinstance(checkpoint_of(compare_to), NetworkSpec)
    lacking = ("backbone", "layers") if is_foreign else ("backbone", "tokens", "blocks")
    fields = DiagnosticsConfig.model_fields
    return config.model_copy(update={key: fields[key].default for key in lacking})


def _features_of(other: Subject, images: ImageSet, config: DiagnosticsConfig) -> Tensor:
    assert config.compare_to is not None
    own = _settings_of_other(config, config.compare_to)
    with frozen(other.backbone):
        return stored_features(other, images, own, "other features").features


def _details(
    findings: Findings,
    config: DiagnosticsConfig,
    lack: str | None,
    measured: Measured,
    other: Subject | None,
) -> dict[str, Any]:
    num_images, width = len(findings.images), findings.features.features.shape[1]
    test = None if config.split == "train" else findings.images
    details: dict[str, Any] = {
        "feature_width": width,
        "num_images": min(config.num_images, num_images),
        "num_view_images": min(config.num_view_images, num_images),
        "num_embedded_images": min(config.embedding.num_images, num_images),
        "images": describe_images(findings.train, test),
        "left_out": [
            *measured.left_out,
            *([] if lack is None else [f"{_WITHOUT_CLASSES}: {lack}"]),
        ],
    }
    if other is not None:
        details["compared_to"] = to_tree(other.model)
    if findings.classes is not None:
        details |= describe_mistakes(findings.classes, config.vote)
    return details


def _draw(findings: Findings, config: DiagnosticsConfig, workspace: Workspace) -> dict[str, str]:
    """Write all plots and tables atomically; return their titles and paths."""
    folder = workspace.artifacts
    if is_main():
        with atomic_folder(folder) as temporary:
            draw_pictures(findings, config, temporary)
    return {what: f"{folder.name}/{file}" for what, file in findings.files.items()}
