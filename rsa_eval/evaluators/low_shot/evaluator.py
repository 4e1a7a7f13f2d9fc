"""Evaluate features by classification from few labels."""

import logging
from collections.abc import Sequence
from functools import partial

import numpy as np
from torch import Tensor

from rsa_eval.evaluators.low_shot.draws import (
    Draw,
    DrawResult,
    centred_to_unit_norm,
    describe_runs,
    draw_all,
    drawn_rows,
    train_and_test,
)
from rsa_eval.evaluators.low_shot.settings import (
    SUBSETS,
    ClassifierConfig,
    LowShotConfig,
    LowShotOptions,
)
from rsa_eval.evaluators.shared.answers import kept_answers
from rsa_eval.evaluators.shared.deviations import common_deviations, settings_deviations
from rsa_eval.evaluators.shared.feature_checks import classes_of, with_doubts
from rsa_eval.evaluators.shared.labelled_images import describe_images, open_splits
from rsa_eval.evaluators.shared.settings import Subset
from rsa_eval.evaluators.shared.subsets import Rows, draw_subset, subset_rows
from rsa_eval.features.extract import evaluation_features
from rsa_eval.features.frozen import frozen
from rsa_eval.features.labelled import LabelledFeatures
from rsa_eval.features.room import check_memory
from rsa_eval.features.subject import Subject
from rsa_eval.records.record import Metric, Result, Scores
from rsa_eval.records.workspace import Workspace
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.progress import progress_bar

_log = logging.getLogger(__name__)

_PUBLISHED_DRAWS = 3
# A scaled copy of the features.
_OWN_BYTES = 4
_PUBLISHED_CLASSIFIER = ClassifierConfig()


def evaluate_low_shot(subject: Subject, config: LowShotConfig, workspace: Workspace) -> Result:
    """Train a classifier on each draw of each subset, reading only the drawn images.

    Raises:
        UserError: If the data cannot be used, or a subset has too few images.
    """
    train, test = open_splits(config)
    draws = draw_all(partial(subset_rows, train), config.subsets, config.subset_seeds)
    rows = drawn_rows(draws)
    drawn = train.select(rows)
    check_memory(subject, config, [drawn, test], as_float32=True, own_bytes=_OWN_BYTES)
    with frozen(subject.backbone):
        features = evaluation_features(subject, drawn, config, "train features").cpu()
        test_features = evaluation_features(subject, test, config, "test features").cpu()
    num_classes = len(train.class_names)
    runs = _train_all(draws, rows, features, test_features, config.classifier, num_classes)
    scores = _summarise(runs, test_features.labels, num_classes, config.classifier)
    scores = with_doubts(scores, features, test_features, num_classes)
    fingerprints = iter([train.select(draw.rows).fingerprint() for draw in draws])
    for subset in scores.details["subsets"]:
        for run in subset["runs"]:
            run["sha256"] = next(fingerprints)
    deviations = common_deviations(config) + draw_deviations(config)
    return scores.result({"images": describe_images(train, test)}, deviations, test.keys())


def low_shot(
    train: LabelledFeatures,
    test: LabelledFeatures,
    subsets: Sequence[Subset] = SUBSETS,
    seeds: Sequence[int] = (0, 1, 2),
    classifier: ClassifierConfig = _PUBLISHED_CLASSIFIER,
    *,
    num_classes: int | None = None,
) -> Scores:
    """Classify test images by logistic regression on a few labels, averaged over several draws.

    MSN's protocol (Assran et al. 2022): each image's features minus their mean, divided by their
    norm; no intercepts, C fixed.

        low_shot(train, test, [Subset(per_class=1), Subset(percent=10)])

    Args:
        train: Features of all training images, (N, D).
        test: Features of the test images, (M, D).
        subsets: Labels to train on, by percentage or number per class; the first is the headline.
        seeds: One draw of each subset per seed.
        classifier: C and the fit's tolerance.
        num_classes: Number of classes; None takes the largest training label plus one.

    Returns:
        ``top1_SUBSET`` of each subset in percent, the mean over its draws; the draws and their
        sample standard deviation in ``details["subsets"]``.

    Raises:
        UserError: If an image has no class, widths differ, a class has too few images, or a subset
            is a list of files.
    """
    num_classes = classes_of(train, test, num_classes)
    listed = [subset.name for subset in subsets if subset.list_file is not None]
    if listed:
        raise UserError(
            f"{', '.join(listed)} names image files, which features lack; draw a subset by percent "
            "or per_class"
        )
    labels, names = train.labels.numpy(), list(map(str, range(num_classes)))

    def rows_of(subset: Subset, seed: int) -> Rows:
        return draw_subset(labels, subset, seed, names, "the training images")

    draws = draw_all(rows_of, subsets, seeds)
    everything = np.arange(len(labels))
    runs = _train_all(draws, everything, train, test, classifier, num_classes)
    return _summarise(runs, test.labels, num_classes, classifier)


def _summarise(
    runs: list[DrawResult], labels: Tensor, num_classes: int, classifier: ClassifierConfig
) -> Scores:
    """Average the runs of each subset, in the order of the runs, and warn of unfinished fits."""
    by_subset: dict[Subset, list[DrawResult]] = {}
    for run in runs:
        by_subset.setdefault(run.draw.subset, []).append(run)
    described = [describe_runs(own, num_classes) for own in by_subset.values()]
    answers = {subset.name: [run.answers for run in own] for subset, own in by_subset.items()}
    metrics = {
        f"top1_{entry['subset']}": Metric(value=entry["top1_mean"], unit="%") for entry in described
    }
    scores = Scores(
        metrics=metrics,
        headline=next(iter(metrics)),
        num_samples=len(labels),
        details={"subsets": described},
        predictions=kept_answers(labels, answers, num_classes),
    )
    unfinished = sum(not run.converged for run in runs)
    if unfinished == 0:
        return scores
    text = (
        f"{unfinished} of {len(runs)} fits did not converge in {classifier.max_iterations} "
        "iterations"
    )
    _log.warning("%s", text)
    return scores.warned([text])


def _train_all(
    draws: list[Draw],
    rows: Rows,
    features: LabelledFeatures,
    test: LabelledFeatures,
    classifier: ClassifierConfig,
    num_classes: int,
) -> list[DrawResult]:
    train_inputs = centred_to_unit_norm(features.features)
    test_inputs = LabelledFeatures(centred_to_unit_norm(test.features), test.labels)
    runs: list[DrawResult] = []
    with progress_bar(len(draws), "low-shot", "fit") as bar:
        for draw in draws:
            places = np.searchsorted(rows, draw.rows)
            own = LabelledFeatures(_select(train_inputs, places), _select(features.labels, places))
            runs.append(train_and_test(draw, own, test_inputs, classifier, num_classes))
            bar.update()
    return runs


def _select(tensor: Tensor, places: Rows) -> Tensor:
    return tensor[places.tolist()]


def draw_deviations(options: LowShotOptions) -> list[str]:
    """List the departures of the draws and the classifier."""
    deviations = settings_deviations(options.classifier, ClassifierConfig())
    num_draws = len(options.subset_seeds)
    if num_draws != _PUBLISHED_DRAWS and any(subset.is_drawn for subset in options.subsets):
        deviations.append(f"draws of each subset: {num_draws} (protocol: {_PUBLISHED_DRAWS})")
    return deviations
