"""Evaluate features by logistic regression."""

import logging
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from rsa_eval.evaluators.logistic.fit import ChosenC, Fitter, LogisticFit, answers_of, choose_c
from rsa_eval.evaluators.logistic.ridge import edge_warning, ridge_regression
from rsa_eval.evaluators.logistic.settings import LogisticConfig, LogisticOptions, SearchConfig
from rsa_eval.evaluators.shared.answers import kept_answers
from rsa_eval.evaluators.shared.deviations import (
    DINOV2,
    KORNBLITH,
    USUAL,
    common_deviations,
    settings_deviations,
)
from rsa_eval.evaluators.shared.feature_checks import classes_of
from rsa_eval.evaluators.shared.held_out import held_out_rows
from rsa_eval.evaluators.shared.labelled_images import (
    accuracy_metrics,
    describe_images,
    open_splits,
)
from rsa_eval.evaluators.shared.subsets import Rows
from rsa_eval.features.extract import stored_features
from rsa_eval.features.frozen import frozen
from rsa_eval.features.labelled import LabelledFeatures
from rsa_eval.features.subject import Subject
from rsa_eval.records.record import WARNINGS, Result, Scores
from rsa_eval.records.workspace import Workspace
from rsa_pretrain.data.image_set import ImageSet
from rsa_pretrain.data.open_images import open_images
from rsa_pretrain.data.sets import data_set
from rsa_pretrain.plumbing.errors import UserError

_log = logging.getLogger(__name__)

_SHORT_SIDE = 224
"""Of the resized image, in dinov2/eval/log_regression.py and Kornblith et al. 2019, whose crop of
the centre is as large; linear probes have the usual 256."""
_PUBLISHED_SEARCH = SearchConfig()
_EXTRACTIONS = {"dinov2": DINOV2, "kornblith": KORNBLITH, "ridge": USUAL}


def evaluate_logistic(subject: Subject, config: LogisticConfig, workspace: Workspace) -> Result:
    """Choose C on held-out training images, refit on all training images, and test once.

    Raises:
        UserError: If the data cannot be used.
    """
    train, test = open_splits(config)
    validation = None
    if config.protocol == "kornblith" and "val" in data_set(config.data.name).counts:
        validation = _validation_rows(train, open_images(config.data, "val"))
    with frozen(subject.backbone):
        train_features = stored_features(subject, train, config, "train features")
        test_features = stored_features(subject, test, config, "test features")
    scores = score_features(
        train_features,
        test_features,
        config,
        num_classes=len(train.class_names),
        seed=config.seed,
        device=subject.device,
        validation=validation,
    )
    details = {
        "images": describe_images(train, test),
        "num_published_validation_images": None if validation is None else len(validation),
    }
    return scores.result(details, logistic_deviations(config, validation), test.keys())


def score_features(
    train: LabelledFeatures,
    test: LabelledFeatures,
    options: LogisticOptions,
    *,
    num_classes: int | None,
    seed: int,
    device: torch.device,
    validation: Rows | None = None,
) -> Scores:
    """Classify test images as the protocol says; arguments as of ``logistic_regression``."""
    if options.protocol == "ridge":
        return ridge_regression(train, test, options.search, num_classes=num_classes, device=device)
    return logistic_regression(
        train,
        test,
        options.search,
        num_classes=num_classes,
        seed=seed,
        device=device,
        validation=validation,
    )


def logistic_deviations(config: LogisticConfig, validation: Rows | None = None) -> list[str]:
    """List the departures of a logistic regression.

    Args:
        config: The evaluation.
        validation: Published validation images; None if there are none.
    """
    deviations = common_deviations(config, _EXTRACTIONS[config.protocol])
    if config.protocol != "ridge" and config.data.eval_resize not in (None, _SHORT_SIDE):
        deviations.append(
            f"short side resized to {config.data.eval_resize} (protocol: {_SHORT_SIDE})"
        )
    return deviations + search_deviations(config, validation)


def search_deviations(options: LogisticOptions, validation: Rows | None = None) -> list[str]:
    """List the departures of the search for C and of the fit."""
    deviations = settings_deviations(options.search, SearchConfig())
    if options.protocol == "dinov2":
        tolerance = options.search.tolerance
        deviations += [
            f"preconditioned L-BFGS, tolerance {tolerance:g} (protocol: cuML's, 1e-12)",
            "held out by class (protocol: of all images alike)",
        ]
    if options.protocol == "kornblith" and validation is None:
        deviations.append("validation images drawn by class (protocol: its authors' own draw)")
    return deviations


def _validation_rows(train: ImageSet, validation: ImageSet) -> Rows:
    """Return the places of the published validation images among the training images."""
    known, keys = set(validation.keys()), train.keys()
    rows = np.flatnonzero([key in known for key in keys])
    if not 0 < len(rows) < len(train):
        raise UserError(
            f"{len(rows)} of {len(train)} training images of {train.name} are published validation "
            "images; use all training images (data.num_train_images=null)"
        )
    return rows


def logistic_regression(
    train: LabelledFeatures,
    test: LabelledFeatures,
    search: SearchConfig = _PUBLISHED_SEARCH,
    *,
    num_classes: int | None = None,
    seed: int = 0,
    device: torch.device | None = None,
    validation: Rows | None = None,
) -> Scores:
    """Classify test images by logistic regression, its C chosen on held-out training images.

    DINOv2's protocol (Oquab et al. 2023): features as they are, a final fit on all training images.

    Args:
        train: Features of the training images, (N, D).
        test: Features of the test images, (M, D).
        search: Values of C, the share held out and the fit's tolerance.
        num_classes: Number of classes; None takes the largest training label plus one.
        seed: Seeds the choice of held-out images.
        device: Where to compute; None computes where the features are.
        validation: Places of the training images to hold out; None draws them.

    Returns:
        ``top1`` and, for more than five classes, ``top5`` in percent; the chosen ``C`` and the
        accuracy of every other in ``details``.

    Raises:
        UserError: If an image has no class, widths differ, or no image can be held out.
    """
    num_classes = classes_of(train, test, num_classes)
    labels, key = train.labels.numpy(), "search.held_out_percent"
    if validation is None:
        validation = held_out_rows(labels, search.held_out_percent, seed, key=key, unit=1)
    rest = np.setdiff1d(np.arange(len(labels)), validation)

    def fitter(rows: Rows | None, start: LogisticFit | None) -> Fitter:
        return Fitter(
            train,
            max_iterations=search.max_iterations,
            tolerance=search.tolerance,
            rows=None if rows is None else torch.from_numpy(rows),
            start=start,
            device=device,
        )

    choice = choose_c(
        fitter(rest, None), train, search.strengths, num_classes, torch.from_numpy(validation)
    )
    final = fitter(None, choice.fit).fit(choice.c)
    answers = answers_of(final.classifier, test, num_classes)
    warnings = _warnings(choice, final, search)
    for text in warnings:
        _log.warning("%s", text)
    unfinished = sum(not trial.converged for trial in choice.trials)
    if unfinished:
        _log.warning(
            "%d of %d fits to choose C did not converge in %d iterations",
            unfinished,
            len(choice.trials),
            search.max_iterations,
        )
    return Scores(
        metrics=accuracy_metrics(answers.counts, num_classes),
        headline="top1",
        num_samples=len(test.labels),
        details=_details(choice, final) | ({WARNINGS: warnings} if warnings else {}),
        predictions=kept_answers(test.labels, {"": [answers]}, num_classes),
    )


def _warnings(choice: ChosenC, final: LogisticFit, search: SearchConfig) -> list[str]:
    found = [edge_warning(search)] if choice.at_edge else []
    if not final.converged:
        found.append(f"the final fit did not converge in {search.max_iterations} iterations")
    return found


def _details(choice: ChosenC, final: LogisticFit) -> dict[str, Any]:
    return {
        "C": choice.c,
        "C_at_edge": choice.at_edge,
        "held_out": [asdict(trial) for trial in choice.trials],
        "converged": final.converged,
        "iterations": final.iterations,
    }
