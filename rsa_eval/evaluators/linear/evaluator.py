"""Evaluate features by a linear probe."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rsa_eval.evaluators.linear.batches import ProbeBatches, ReadOrder, cached_batches
from rsa_eval.evaluators.linear.choice import Probe, choose_head
from rsa_eval.evaluators.linear.deviations import linear_deviations
from rsa_eval.evaluators.linear.heads import HeadTrainer, new_heads
from rsa_eval.evaluators.linear.online import check_views, online_batches, steps_per_forward
from rsa_eval.evaluators.linear.probe import train_probe
from rsa_eval.evaluators.linear.settings import LinearConfig, ProbeConfig
from rsa_eval.evaluators.linear.state import ProbeState
from rsa_eval.evaluators.shared.answers import kept_answers
from rsa_eval.evaluators.shared.feature_checks import classes_of
from rsa_eval.evaluators.shared.held_out import held_out_rows
from rsa_eval.evaluators.shared.labelled_images import describe_images, open_labelled, open_splits
from rsa_eval.evaluators.shared.metrics import TopKCounts
from rsa_eval.evaluators.shared.resumable import training_fingerprint
from rsa_eval.evaluators.shared.subsets import Rows
from rsa_eval.features.extract import evaluation_features
from rsa_eval.features.forward import feature_width
from rsa_eval.features.frozen import frozen
from rsa_eval.features.labelled import LabelledFeatures
from rsa_eval.features.room import check_memory
from rsa_eval.features.scaling import Standardisation, measure, unscaled
from rsa_eval.features.subject import Subject
from rsa_eval.records.mean_std import MeanStd
from rsa_eval.records.record import WARNINGS, Metric, Result, Scores
from rsa_eval.records.workspace import Workspace
from rsa_pretrain.data.image_set import ImageSet
from rsa_pretrain.data.sets.stl10 import NUM_FOLDS
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.stop_signal import Stopped

_MOCO_V2_CACHED = ProbeConfig(mode="cached")


def evaluate_linear(subject: Subject, config: LinearConfig, workspace: Workspace) -> Result:
    """Train linear classifiers on the training images and test once, after the last epoch.

    Raises:
        UserError: If the data cannot be used, or the training diverges.
        Stopped: If a signal stopped the training; the same call resumes it.
    """
    train, test = open_splits(config)
    check_memory(subject, config, [test], as_float32=True)
    with frozen(subject.backbone):
        if config.stl10_folds:
            probes = [
                train_chosen(subject, _open_fold(config, fold), config, workspace.fold_state(fold))
                for fold in range(NUM_FOLDS)
            ]
        else:
            probes = [train_chosen(subject, train, config, workspace.state)]
        features = evaluation_features(subject, test, config, "test features")
        answers = [probe.test(features) for probe in probes]
    counts, num_classes = [own.counts for own in answers], len(train.class_names)
    return Result(
        metrics=_metrics(counts, num_classes),
        headline="top1",
        num_samples=len(test),
        details=_details(config, probes, counts, num_classes)
        | {"images": describe_images(train, test)},
        predictions=kept_answers(features.labels, {"": answers}, num_classes),
        deviations=linear_deviations(config, probes[0].state.step),
        test_keys=test.keys(),
    )


def linear_probe(
    train: LabelledFeatures,
    test: LabelledFeatures,
    probe: ProbeConfig = _MOCO_V2_CACHED,
    *,
    num_classes: int | None = None,
    seed: int = 0,
    device: str | torch.device = "cpu",
) -> Scores:
    """Train a linear classifier on features, and count the test images it gets right.

    The default is MoCo v2's protocol on features that are extracted once. Several learning rates
    train one head each; the one most accurate on held-out training images is tested.

        linear_probe(train, test, ProbeConfig(mode="cached", epochs=20, milestones=(12, 16)))

    Args:
        train: Features of the training images, (N, D).
        test: Features of the test images, (M, D).
        probe: Settings of the probe; ``mode`` must be ``cached``.
        num_classes: Number of classes; None takes the largest training label plus one.
        seed: Seeds the initial weights, the order of the images and the held-out images.
        device: Device to train on.

    Returns:
        ``top1`` and, for more than five classes, ``top5`` in percent; ``loss_by_epoch`` and the
        choice among heads in ``details``.

    Raises:
        UserError: If an image has no class, widths differ, ``mode`` is not ``cached``, or the
            training diverges.
        Stopped: If a signal, such as Ctrl-C's, stopped the training.
    """
    if probe.mode != "cached":
        raise UserError(f"a probe on features needs probe.mode 'cached', found '{probe.mode}'")
    num_classes = classes_of(train, test, num_classes)
    place, held_out = torch.device(device), None
    if len(probe.base_lr) > 1:
        rest, rows = _parted(train.labels.numpy(), probe.held_out_share, seed)
        train, held_out = (
            LabelledFeatures(train.features[kept], train.labels[kept]) for kept in (rest, rows)
        )
    heads = new_heads(train.features.shape[1], num_classes, probe, seed, place)
    state = ProbeState(HeadTrainer(heads, probe), fingerprint="", path=None)
    order = ReadOrder(len(train.labels), probe.batch_size, probe.epochs, seed)
    scaling = _scaling_by(train.features, probe, place)
    try:
        train_probe(state, cached_batches(train, order, scaling, place), order, math.inf)
    except Stopped as stopped:
        lost = f"{stopped.received.name} stopped the linear probe, which starts over when called"
        raise Stopped(stopped.received, lost) from None
    trained = choose_head(state, scaling, held_out)
    answers = trained.test(test)
    return Scores(
        metrics=_metrics([answers.counts], num_classes),
        headline="top1",
        num_samples=len(test.labels),
        details={"mode": probe.mode, **trained.details},
        predictions=kept_answers(test.labels, {"": [answers]}, num_classes),
    )


def train_chosen(subject: Subject, images: ImageSet, config: LinearConfig, path: Path) -> Probe:
    """Train one probe; if it has several heads, choose one on held-out training images.

    The state is kept at ``path``; the errors are those of ``evaluate_linear``.
    """
    check_views(images, config)
    device = subject.device
    probe, held_out = config.probe, None
    if len(probe.base_lr) > 1:
        images, held_out = _hold_out(images, probe.held_out_share, config.seed)
    width, num_classes = feature_width(subject.backbone, config), len(images.class_names)
    trainer = HeadTrainer(new_heads(width, num_classes, probe, config.seed, device), probe)
    state = ProbeState(trainer, training_fingerprint(subject, images, config), path)
    state.restore()
    order = ReadOrder(len(images), probe.batch_size, probe.epochs, config.seed)
    batches, scaling = _training_batches(subject, images, order, config, device)
    train_probe(state, batches, order, config.save_every_minutes)
    features = None
    if held_out is not None:
        features = evaluation_features(subject, held_out, config, "held-out features")
    return choose_head(state, scaling, features)


def _hold_out(images: ImageSet, share: float, seed: int) -> tuple[ImageSet, ImageSet]:
    """Split off a share of each class, leaving at least one image."""
    rest, rows = _parted(np.asarray(images.require_labels()), share, seed)
    return images.select(rest), images.select(rows)


def _parted(labels: Rows, share: float, seed: int) -> tuple[Rows, Rows]:
    """Return the rows of the rest, and those of a share of each class."""
    rows = held_out_rows(labels, 100 * share, seed, key="probe.held_out_share", unit=0.01)
    return np.delete(np.arange(len(labels)), rows), rows


def _training_batches(
    subject: Subject,
    images: ImageSet,
    order: ReadOrder,
    config: LinearConfig,
    device: torch.device,
) -> tuple[ProbeBatches, Callable[[Tensor], Tensor]]:
    """Return the training batches and their feature scaling."""
    probe = config.probe
    scaling: Callable[[Tensor], Tensor] = unscaled
    if probe.mode == "cached" or probe.standardise:
        train = evaluation_features(subject, images, config, "train features")
        scaling = _scaling_by(train.features, probe, device)
    if probe.mode == "cached":
        return cached_batches(train, order, scaling, device), scaling
    num_steps = steps_per_forward(device, subject.backbone, config)
    return online_batches(subject, images, order, scaling, config, num_steps), scaling


def _scaling_by(
    features: Tensor, probe: ProbeConfig, device: torch.device
) -> Callable[[Tensor], Tensor]:
    """Return the scaling of features, measured on the training images', for use on a device."""
    if not probe.standardise:
        return unscaled
    found = measure(features)
    return Standardisation(found.mean.to(device), found.variance.to(device))


def _open_fold(config: LinearConfig, fold: int) -> ImageSet:
    data = config.data.model_copy(update={"stl10_fold": fold})
    return open_labelled(config.model_copy(update={"data": data}), "train")


def _metrics(counts: list[TopKCounts], num_classes: int) -> dict[str, Metric]:
    """Return the accuracies; for several folds their mean and sample standard deviation."""
    percentages = [count.percentages(num_classes) for count in counts]
    metrics = {}
    for name in percentages[0]:
        found = MeanStd.of([each[name] for each in percentages])
        metrics[name] = Metric(value=found.mean, unit="%")
        if found.std is not None:
            metrics[f"{name}_std"] = Metric(value=found.std, unit="%")
    return metrics


def _details(
    config: LinearConfig, probes: list[Probe], counts: list[TopKCounts], num_classes: int
) -> dict[str, Any]:
    mode = {"mode": config.probe.mode}
    if not config.stl10_folds:
        return mode | probes[0].details
    folds = [
        {"fold": fold, **count.percentages(num_classes), **probe.details}
        for fold, (probe, count) in enumerate(zip(probes, counts, strict=True))
    ]
    found = dict.fromkeys(text for probe in probes for text in probe.details.get(WARNINGS, ()))
    return mode | {"folds": folds} | ({WARNINGS: list(found)} if found else {})
