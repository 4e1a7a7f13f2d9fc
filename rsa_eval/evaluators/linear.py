"""The linear probe as an evaluation."""

import time

import torch

from rsa_eval.evaluators.base import (
    Evaluator,
    Workspace,
    accuracy_metrics,
    describe_images,
    open_splits,
    place,
)
from rsa_eval.features import evaluation_features, feature_width, frozen
from rsa_eval.linear_config import LinearConfig
from rsa_eval.linear_probe import (
    Batches,
    cached_batches,
    new_head,
    online_batches,
    score_probe,
    train_probe,
)
from rsa_eval.protocols import linear_deviations
from rsa_eval.record import Record, make_record
from rsa_eval.subject import Subject
from rsa_pretrain.image_set import ImageSet


def evaluate_linear(subject: Subject, config: LinearConfig, workspace: Workspace) -> Record:
    """Train a linear classifier on the training images and count the test images once, at the end.

    Raises:
        UserError: If the data or the device cannot be used, or the training diverges.
    """
    started = time.perf_counter()
    device = place(subject, config)
    train, test = open_splits(config)
    with frozen(subject.backbone):
        width = feature_width(subject.backbone, config)
        head = new_head(width, len(train.class_names), config.probe, config.seed, device)
        batches = _training_batches(subject, train, config, device)
        trained = train_probe(batches, len(train), head, config.probe)
        features = evaluation_features(subject, test, config, "test features")
        counts = score_probe(trained.head, features)
    return make_record(
        kind="linear",
        protocol=config.protocol,
        metrics=accuracy_metrics(counts),
        headline="top1",
        num_samples=counts.total,
        data_set=config.data.name,
        model=subject.model,
        config=config,
        seeds=[config.seed],
        device=device,
        seconds=time.perf_counter() - started,
        details={"loss_by_epoch": trained.losses, "images": describe_images(train, test)},
        deviations=linear_deviations(config),
    )


def _training_batches(
    subject: Subject, train: ImageSet, config: LinearConfig, device: torch.device
) -> Batches:
    if config.probe.mode == "online":
        return online_batches(subject, train, config)
    features = evaluation_features(subject, train, config, "train features")
    return cached_batches(features, config.probe, config.seed, device)


EVALUATOR = Evaluator(
    config=LinearConfig,
    evaluate=evaluate_linear,
    summary="train a linear probe",
    measures="top-1 and top-5 accuracy of a linear classifier on a frozen backbone's features",
    example_config="linear/moco_v2_cifar10.yaml",
)
