"""Evaluate features by linear support vector machines."""

import logging
from statistics import mean
from typing import Any, Literal

from rsa_eval.evaluators.shared.labelled_images import describe_images, open_splits
from rsa_eval.evaluators.shared.protocols import common_deviations, settings_deviations
from rsa_eval.evaluators.svm.binary_svm import (
    BinarySVM,
    ClassAP,
    Matrix,
    score_machines,
    to_unit_norm,
    train_machines,
)
from rsa_eval.evaluators.svm.multi_label import MultiLabelSet, one_against_rest, open_multi_label
from rsa_eval.evaluators.svm.settings import MachineConfig, SVMConfig
from rsa_eval.features.extract import LabelledFeatures, evaluation_features
from rsa_eval.features.frozen import frozen
from rsa_eval.features.subject import Subject
from rsa_eval.records.record import Metric, Result, Workspace
from rsa_pretrain.plumbing.errors import UserError

_log = logging.getLogger(__name__)


def evaluate_svm(subject: Subject, config: SVMConfig, workspace: Workspace) -> Result:
    """Train a machine per class, with cross-validated cost, and rank the test images.

    Raises:
        UserError: If the data cannot be used.
    """
    train, test = _open_both(config)
    names = train.class_names
    with frozen(subject.backbone):
        known = evaluation_features(subject, train.images, config, "train features")
        unknown = evaluation_features(subject, test.images, config, "test features")
    truth = train.truth(known.labels)
    machines = train_machines(_inputs(known), truth, names, config.machine, config.seed)
    scores = score_machines(machines, _inputs(unknown), test.truth(unknown.labels), names)
    _warn(machines, config.machine)
    return Result(
        metrics={
            "mAP": Metric(value=mean(score.area for score in scores), unit="%"),
            "mAP_11_points": Metric(value=mean(score.eleven_points for score in scores), unit="%"),
        },
        headline="mAP",
        num_samples=len(test.images),
        details={
            "classes": _describe(names, machines, scores),
            "images": describe_images(train.images, test.images),
            "annotation_sha256": {"train": train.sha256(), "test": test.sha256()},
        },
        deviations=_deviations(config, left_out=bool((truth == 0).any())),
    )


def _open_both(config: SVMConfig) -> tuple[MultiLabelSet, MultiLabelSet]:
    if config.multi_label is None:
        train, test = map(one_against_rest, open_splits(config))
        return train, test
    splits: tuple[Literal["train", "test"], ...] = ("train", "test")
    train, test = (open_multi_label(config.data, config.multi_label, split) for split in splits)
    if train.class_names != test.class_names:
        only_one = set(train.class_names) ^ set(test.class_names)
        what = ", ".join(sorted(only_one)[:5]) or "same names, different order"
        raise UserError(f"training and test images of {config.data_set} differ in classes: {what}")
    return train, test


def _inputs(features: LabelledFeatures) -> Matrix:
    return to_unit_norm(features.features.double().numpy())


def _warn(machines: list[BinarySVM], config: MachineConfig) -> None:
    cut_short = sum(machine.num_cut_short for machine in machines)
    if cut_short:
        _log.warning(
            "%d of %d fits did not converge in %d iterations",
            cut_short,
            len(machines) * (len(config.costs) * config.folds + 1),
            config.max_iterations,
        )
    at_edge = sum(machine.cost in (config.costs[0], config.costs[-1]) for machine in machines)
    if at_edge and len(config.costs) > 1:
        _log.warning(
            "for %d of %d classes the best cost is at the edge of the range tried",
            at_edge,
            len(machines),
        )


def _describe(
    names: list[str], machines: list[BinarySVM], scores: list[ClassAP]
) -> list[dict[str, Any]]:
    return [
        {
            "class": name,
            "AP": score.area,
            "AP_11_points": score.eleven_points,
            "cost": machine.cost,
            "fold_AP": machine.fold_ap,
            "fits_cut_short": machine.num_cut_short,
        }
        for name, machine, score in zip(names, machines, scores, strict=True)
    ]


def _deviations(config: SVMConfig, *, left_out: bool) -> list[str]:
    deviations = [
        *common_deviations(config),
        *settings_deviations(config.machine, MachineConfig()),
    ]
    if config.multi_label is None:
        deviations.append("one class per image (protocol: several)")
    if left_out:
        deviations.append("images labelled 0 left out of training (protocol: negatives)")
    return deviations
