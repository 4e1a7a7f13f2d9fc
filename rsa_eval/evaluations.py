"""One evaluation, from a subject and its settings to a record."""

import time

import torch

from rsa_eval.config import EvaluationConfig, KNNConfig, LinearConfig
from rsa_eval.features import (
    LabelledFeatures,
    evaluation_transform,
    extract_features,
    frozen,
)
from rsa_eval.knn import knn_counts
from rsa_eval.linear_probe import (
    Batches,
    cached_batches,
    new_head,
    online_batches,
    score_probe,
    train_probe,
)
from rsa_eval.metrics import TopKCounts
from rsa_eval.protocols import knn_deviations, linear_deviations
from rsa_eval.record import Metric, Record, make_record
from rsa_eval.subject import Subject
from rsa_pretrain.backbone import feature_dim
from rsa_pretrain.data import Split, open_images
from rsa_pretrain.device import check_precision, resolve_device
from rsa_pretrain.errors import UserError
from rsa_pretrain.image_set import ImageSet


def evaluate_knn(subject: Subject, config: KNNConfig) -> Record:
    """Classify the test images by their neighbours among the training images.

    Raises:
        UserError: If the data or the device cannot be used.
    """
    started = time.perf_counter()
    device = _place(subject, config)
    train, test = _open_labelled(config, "train"), _open_labelled(config, "test")
    _check_classes(train, test)
    with frozen(subject.backbone):
        bank = _features(subject, train, config, "train features")
        queries = _features(subject, test, config, "test features")
    counts = knn_counts(
        bank, queries, config.settings, len(train.class_names), config.chunk_size, device
    )
    votes = [
        {
            "k": setting.k,
            "neighbours": min(setting.k, len(train)),
            "temperature": setting.temperature,
            **count.percentages(),
        }
        for setting, count in zip(config.settings, counts, strict=True)
    ]
    return make_record(
        kind="knn",
        protocol=config.protocol,
        metrics=_metrics(counts[0]),
        headline="top1",
        num_samples=counts[0].total,
        data_set=config.data.name,
        model=subject.model,
        config=config,
        seed=config.seed,
        device=device,
        seconds=time.perf_counter() - started,
        details={"votes": votes, "images": _describe_images(train, test)},
        deviations=knn_deviations(config, len(train)),
    )


def evaluate_linear(subject: Subject, config: LinearConfig) -> Record:
    """Train a linear classifier on the training images and count the test images once, at the end.

    Raises:
        UserError: If the data or the device cannot be used, or the training diverges.
    """
    started = time.perf_counter()
    device = _place(subject, config)
    train, test = _open_labelled(config, "train"), _open_labelled(config, "test")
    _check_classes(train, test)
    with frozen(subject.backbone):
        width = feature_dim(subject.backbone)
        head = new_head(width, len(train.class_names), config.probe, config.seed, device)
        batches = _training_batches(subject, train, config, device)
        trained = train_probe(batches, len(train), head, config.probe)
        counts = score_probe(trained.head, _features(subject, test, config, "test features"))
    return make_record(
        kind="linear",
        protocol=config.protocol,
        metrics=_metrics(counts),
        headline="top1",
        num_samples=counts.total,
        data_set=config.data.name,
        model=subject.model,
        config=config,
        seed=config.seed,
        device=device,
        seconds=time.perf_counter() - started,
        details={"loss_by_epoch": trained.losses, "images": _describe_images(train, test)},
        deviations=linear_deviations(config),
    )


def _place(subject: Subject, config: EvaluationConfig) -> torch.device:
    device = resolve_device(config.device)
    check_precision(config.precision, device)
    subject.backbone.to(device)
    return device


def _open_labelled(config: EvaluationConfig, split: Split) -> ImageSet:
    images = open_images(config.data, split)
    images.require_labels()
    return images


def _check_classes(train: ImageSet, test: ImageSet) -> None:
    known, largest = len(train.class_names), max(test.require_labels())
    if largest >= known:
        raise UserError(
            f"the test images of {test.name} have class {largest}, the training images only "
            f"{known} classes (0 to {known - 1})"
        )


def _features(
    subject: Subject, images: ImageSet, config: EvaluationConfig, label: str
) -> LabelledFeatures:
    transform = evaluation_transform(config.data, subject.mean, subject.std)
    return extract_features(subject.backbone, images, transform, config, label)


def _training_batches(
    subject: Subject, train: ImageSet, config: LinearConfig, device: torch.device
) -> Batches:
    if config.probe.mode == "online":
        return online_batches(subject, train, config)
    features = _features(subject, train, config, "train features")
    return cached_batches(features, config.probe, config.seed, device)


def _metrics(counts: TopKCounts) -> dict[str, Metric]:
    return {name: Metric(value=value, unit="%") for name, value in counts.percentages().items()}


def _describe_images(train: ImageSet, test: ImageSet) -> dict[str, dict[str, str | int]]:
    return {
        split: {"count": len(images), "sha256": images.fingerprint()}
        for split, images in (("train", train), ("test", test))
    }
