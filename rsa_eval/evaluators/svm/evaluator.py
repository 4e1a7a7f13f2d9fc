"""Evaluate features by linear support vector machines."""

import logging
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from rsa_eval.evaluators.shared.average_precision import (
    ClassAP,
    average_precisions,
    mean_precisions,
)
from rsa_eval.evaluators.shared.deviations import common_deviations, settings_deviations
from rsa_eval.evaluators.shared.feature_checks import classes_of, with_doubt_if_alike
from rsa_eval.evaluators.shared.labelled_images import describe_images, open_splits
from rsa_eval.evaluators.shared.multi_label import (
    MultiLabelSet,
    Truth,
    one_against_rest,
    one_hot,
    open_multi_label_splits,
)
from rsa_eval.evaluators.svm.binary_svm import (
    BinarySVM,
    Matrix,
    score_images,
    to_unit_norm,
    train_machines,
)
from rsa_eval.evaluators.svm.settings import MachineConfig, SVMConfig
from rsa_eval.features.extract import evaluation_features
from rsa_eval.features.frozen import frozen
from rsa_eval.features.labelled import LabelledFeatures
from rsa_eval.features.room import check_memory
from rsa_eval.features.subject import Subject
from rsa_eval.records.ranking_predictions import RankingPredictions
from rsa_eval.records.record import Result, Scores
from rsa_eval.records.workspace import Workspace

_log = logging.getLogger(__name__)

# A float64 copy of the features, and another of unit norm.
_OWN_BYTES = 16
_PUBLISHED_MACHINE = MachineConfig()


def evaluate_svm(subject: Subject, config: SVMConfig, workspace: Workspace) -> Result:
    """Train a machine per class, with cross-validated cost, and rank the test images.

    Raises:
        UserError: If the data cannot be used.
    """
    train, test = _open_both(config)
    check_memory(subject, config, [train.images], as_float32=True, own_bytes=_OWN_BYTES)
    with frozen(subject.backbone):
        known = evaluation_features(subject, train.images, config, "train features").cpu()
        unknown = evaluation_features(subject, test.images, config, "test features").cpu()
    truth = train.truth(known.labels)
    scores = _train_and_rank(
        (known.features, truth),
        (unknown.features, test.truth(unknown.labels)),
        train.class_names,
        config.machine,
        config.seed,
    )
    return with_doubt_if_alike(scores, known.features).result(
        {
            "images": describe_images(train.images, test.images),
            "annotation_sha256": {"train": train.sha256(), "test": test.sha256()},
        },
        _deviations(config, left_out=bool((truth == 0).any())),
        test.images.keys(),
    )


def linear_svm(
    train: LabelledFeatures,
    test: LabelledFeatures,
    machine: MachineConfig = _PUBLISHED_MACHINE,
    *,
    class_names: Sequence[str] | None = None,
    seed: int = 0,
) -> Scores:
    """Rank test images by one linear SVM per class, each class against the rest.

    Goyal et al. 2019's protocol: features divided by their norm plus 1e-5, the cost of each class
    chosen by cross-validation.

    Args:
        train: Features of the training images, (N, D).
        test: Features of the test images, (M, D).
        machine: Costs, folds and solver.
        class_names: Names of the C classes; None takes the numbers 0 to the largest training label.
        seed: Seeds the order in which liblinear visits the images.

    Returns:
        ``mAP``, the mean over classes of the area under the precision-recall curve, and
        ``mAP_11_points``, VOC 2007's mean over eleven recalls, in percent; each class in
        ``details["classes"]``.

    Raises:
        UserError: If an image has no class, widths differ, or a class has fewer training images
            than there are folds or no test image.
    """
    known = None if class_names is None else len(class_names)
    num_classes = classes_of(train, test, known)
    names = list(map(str, range(num_classes))) if class_names is None else list(class_names)
    truth = one_hot(num_classes)
    return _train_and_rank(
        (train.features, truth[train.labels.numpy()]),
        (test.features, truth[test.labels.numpy()]),
        names,
        machine,
        seed,
    )


def _train_and_rank(
    train: tuple[Tensor, Truth],
    test: tuple[Tensor, Truth],
    names: list[str],
    machine: MachineConfig,
    seed: int,
) -> Scores:
    """Train and test on features, (N, D), and truths, (N, C)."""
    (known, known_truth), (unknown, unknown_truth) = train, test
    machines = train_machines(_inputs(known), known_truth, names, machine, seed)
    scores = score_images(machines, _inputs(unknown))
    found = average_precisions(scores, unknown_truth, names)
    doubts = _doubts(machines, machine)
    for text in doubts:
        _log.warning("%s", text)
    return Scores(
        metrics=mean_precisions(found),
        headline="mAP",
        num_samples=len(unknown),
        details={"classes": _describe(names, machines, found)},
        predictions=RankingPredictions(scores, unknown_truth),
    ).warned(doubts)


def _open_both(config: SVMConfig) -> tuple[MultiLabelSet, MultiLabelSet]:
    if config.multi_label is None:
        train, test = map(one_against_rest, open_splits(config))
        return train, test
    return open_multi_label_splits(config.data, config.multi_label)


def _inputs(features: Tensor) -> Matrix:
    return to_unit_norm(features.double().numpy())


def _doubts(machines: list[BinarySVM], config: MachineConfig) -> list[str]:
    found = []
    cut_short = sum(machine.num_cut_short for machine in machines)
    if cut_short:
        num_fits = len(machines) * (len(config.costs) * config.folds + 1)
        found.append(
            f"{cut_short} of {num_fits} fits did not converge in {config.max_iterations} iterations"
        )
    at_edge = sum(machine.cost in (config.costs[0], config.costs[-1]) for machine in machines)
    if at_edge and len(config.costs) > 1:
        found.append(
            f"for {at_edge} of {len(machines)} classes the best cost is at the edge of the range "
            "tried"
        )
    return found


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
    deviations = common_deviations(config)
    if config.multi_label is None:
        deviations += one_class_deviations(config.machine)
    else:
        deviations += settings_deviations(config.machine, MachineConfig())
    if left_out:
        deviations.append("images labelled 0 left out of training (protocol: negatives)")
    return deviations


def one_class_deviations(machine: MachineConfig) -> list[str]:
    """List the departures of machines for images of one class each."""
    one_class = "one class per image (protocol: several)"
    return [*settings_deviations(machine, MachineConfig()), one_class]
