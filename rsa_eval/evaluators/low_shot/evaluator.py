"""Evaluate features by classification from few labels."""

import logging

import numpy as np
from torch import Tensor

from rsa_eval.evaluators.low_shot.draws import (
    Draw,
    DrawResult,
    centred_to_unit_norm,
    describe_runs,
    draw_all,
    drawn_rows,
    train_and_count,
)
from rsa_eval.evaluators.low_shot.settings import ClassifierConfig, LowShotConfig
from rsa_eval.evaluators.shared.labelled_images import describe_images, open_splits
from rsa_eval.evaluators.shared.protocols import common_deviations, settings_deviations
from rsa_eval.evaluators.shared.subsets import Rows, take
from rsa_eval.features.extract import LabelledFeatures, evaluation_features
from rsa_eval.features.frozen import frozen
from rsa_eval.features.subject import Subject
from rsa_eval.records.record import Metric, Result, Workspace
from rsa_pretrain.plumbing.progress import progress_bar

_log = logging.getLogger(__name__)

_PUBLISHED_DRAWS = 3


def evaluate_low_shot(subject: Subject, config: LowShotConfig, workspace: Workspace) -> Result:
    """Train a classifier on each draw of each subset, reading only the drawn images.

    Raises:
        UserError: If the data cannot be used, or a subset has too few images.
    """
    train, test = open_splits(config)
    draws = draw_all(train, config.subsets, config.subset_seeds)
    rows = drawn_rows(draws)
    with frozen(subject.backbone):
        features = evaluation_features(subject, take(train, rows), config, "train features")
        test_features = evaluation_features(subject, test, config, "test features")
    runs = _train_all(draws, rows, features, test_features, config, len(train.class_names))
    described = [
        describe_runs([run for run in runs if run.draw.subset == subset], train)
        for subset in config.subsets
    ]
    metrics = {
        f"top1_{entry['subset']}": Metric(value=entry["top1_mean"], unit="%") for entry in described
    }
    return Result(
        metrics=metrics,
        headline=f"top1_{config.subsets[0].name}",
        num_samples=len(test),
        details={"subsets": described, "images": describe_images(train, test)},
        deviations=_deviations(config),
    )


def _train_all(
    draws: list[Draw],
    rows: Rows,
    features: LabelledFeatures,
    test: LabelledFeatures,
    config: LowShotConfig,
    num_classes: int,
) -> list[DrawResult]:
    train_inputs = centred_to_unit_norm(features.features)
    test_inputs = LabelledFeatures(centred_to_unit_norm(test.features), test.labels)
    runs: list[DrawResult] = []
    with progress_bar(len(draws), "low-shot", "fit") as bar:
        for draw in draws:
            places = np.searchsorted(rows, draw.rows)
            own = LabelledFeatures(_select(train_inputs, places), _select(features.labels, places))
            runs.append(train_and_count(draw, own, test_inputs, config.classifier, num_classes))
            bar.update()
    unfinished = sum(not run.converged for run in runs)
    if unfinished:
        _log.warning(
            "%d of %d fits did not converge in %d iterations",
            unfinished,
            len(runs),
            config.classifier.max_iterations,
        )
    return runs


def _select(tensor: Tensor, places: Rows) -> Tensor:
    return tensor[places.tolist()]


def _deviations(config: LowShotConfig) -> list[str]:
    deviations = [
        *common_deviations(config),
        *settings_deviations(config.classifier, ClassifierConfig()),
    ]
    num_draws = len(config.subset_seeds)
    if num_draws != _PUBLISHED_DRAWS and any(subset.is_drawn for subset in config.subsets):
        deviations.append(f"draws of each subset: {num_draws} (protocol: {_PUBLISHED_DRAWS})")
    return deviations
