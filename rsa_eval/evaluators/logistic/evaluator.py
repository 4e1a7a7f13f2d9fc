"""Evaluate features by logistic regression."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from rsa_eval.evaluators.logistic.choice import choose_c, describe_choice
from rsa_eval.evaluators.logistic.deviations import logistic_deviations
from rsa_eval.evaluators.logistic.fit import Fitter, LogisticFit, answers_of
from rsa_eval.evaluators.logistic.multi_label import evaluate_multi_label
from rsa_eval.evaluators.logistic.ridge import ridge_regression
from rsa_eval.evaluators.logistic.settings import LogisticConfig, LogisticOptions, SearchConfig
from rsa_eval.evaluators.shared.answers import kept_answers
from rsa_eval.evaluators.shared.feature_checks import classes_of, with_doubts
from rsa_eval.evaluators.shared.held_out import held_out_rows
from rsa_eval.evaluators.shared.labelled_images import (
    accuracies,
    describe_images,
    headline_of,
    open_splits,
)
from rsa_eval.evaluators.shared.subsets import Rows
from rsa_eval.evaluators.shared.validation import publishes_validation, validation_rows
from rsa_eval.features.extract import stored_features
from rsa_eval.features.frozen import frozen
from rsa_eval.features.labelled import LabelledFeatures
from rsa_eval.features.room import check_memory
from rsa_eval.features.subject import Subject
from rsa_eval.records.record import Result, Scores
from rsa_eval.records.workspace import Workspace
from rsa_pretrain.data.image_set import ImageSet

_PUBLISHED_SEARCH = SearchConfig()
_SHARE = "search.held_out_percent"


def evaluate_logistic(subject: Subject, config: LogisticConfig, workspace: Workspace) -> Result:
    """Choose C on held-out training images, refit on all training images, and test once.

    Raises:
        UserError: If the data cannot be used.
    """
    if config.multi_label is not None:
        return evaluate_multi_label(subject, config, config.multi_label)
    train, test = open_splits(config)
    validation = validation_of(train, config)
    check_memory(subject, config, [train, test])
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
        headline=headline_of(config.data.name),
    )
    scores = with_doubts(scores, train_features, test_features, len(train.class_names))
    details = {
        "images": describe_images(train, test),
        "num_published_validation_images": None if validation is None else len(validation),
    }
    return scores.result(details, logistic_deviations(config, validation), test.keys())


def validation_of(train: ImageSet, config: LogisticConfig) -> Rows | None:
    """Return the published validation images that choose C; None if the protocol takes none.

    Args:
        train: Training images.
        config: The evaluation.

    Raises:
        UserError: If they cannot be used.
    """
    if config.protocol != "kornblith" or not publishes_validation(config.data):
        return None
    percent = config.search.held_out_percent
    return validation_rows(train, config.data, percent, config.seed, key=_SHARE)


def score_features(
    train: LabelledFeatures,
    test: LabelledFeatures,
    options: LogisticOptions,
    *,
    num_classes: int | None,
    seed: int,
    device: torch.device,
    validation: Rows | None = None,
    headline: str = "top1",
) -> Scores:
    """Classify test images as the protocol says; arguments as of ``logistic_regression``."""
    if options.protocol == "ridge":
        return ridge_regression(
            train,
            test,
            options.search,
            num_classes=num_classes,
            device=device,
            headline=headline,
        )
    return logistic_regression(
        train,
        test,
        options.search,
        num_classes=num_classes,
        seed=seed,
        device=device,
        validation=validation,
        headline=headline,
    )


def logistic_regression(
    train: LabelledFeatures,
    test: LabelledFeatures,
    search: SearchConfig = _PUBLISHED_SEARCH,
    *,
    num_classes: int | None = None,
    seed: int = 0,
    device: torch.device | None = None,
    validation: Rows | None = None,
    headline: str = "top1",
) -> Scores:
    """Classify test images by logistic regression, its C chosen on held-out training images.

    DINOv2's protocol (Oquab et al. 2023): features as they are, a final fit on all training images.
    As in its code, and in that of Ericsson et al. 2021 for Kornblith et al.'s, what is reported
    also chooses C.

    Args:
        train: Features of the training images, (N, D).
        test: Features of the test images, (M, D).
        search: Values of C, the share held out and the fit's tolerance.
        num_classes: Number of classes; None takes the largest training label plus one.
        seed: Seeds the choice of held-out images.
        device: Where to compute; None computes where the features are.
        validation: Places of the training images to hold out; None draws them.
        headline: ``top1``, or ``mean_per_class`` for the mean over the classes.

    Returns:
        The headline, ``top1`` and, for more than five classes, ``top5``, in percent; the
        chosen ``C`` and the accuracy of every other in ``details``.

    Raises:
        UserError: If an image has no class, widths differ, or no image can be held out.
    """
    num_classes = classes_of(train, test, num_classes)
    fitted = fit_chosen(
        train,
        search,
        num_classes=num_classes,
        seed=seed,
        device=device,
        validation=validation,
        headline=headline,
    )
    answers = answers_of(fitted.fit.classifier, test, num_classes)
    predictions = kept_answers(test.labels, {"": [answers]}, num_classes)
    return Scores(
        metrics=accuracies(answers.counts, predictions, headline),
        headline=headline,
        num_samples=len(test.labels),
        details=fitted.details,
        predictions=predictions,
    )


@dataclass(frozen=True)
class ChosenFit:
    """A fit to all training images, with the C chosen on held-out ones."""

    fit: LogisticFit
    details: dict[str, Any]
    """The choice and the convergence, for a record."""


def fit_chosen(
    train: LabelledFeatures,
    search: SearchConfig = _PUBLISHED_SEARCH,
    *,
    num_classes: int,
    seed: int = 0,
    device: torch.device | None = None,
    validation: Rows | None = None,
    headline: str = "top1",
) -> ChosenFit:
    """Choose C on held-out training images, and fit all training images with it.

    Args:
        train: As for ``logistic_regression``, each with a class.
        search: As for ``logistic_regression``.
        num_classes: Number of classes.
        seed: Seeds the choice of held-out images.
        device: Where to compute; None computes where the features are.
        validation: Places of the training images to hold out; None draws them.
        headline: As for ``logistic_regression``.

    Raises:
        UserError: If no image can be held out, or all are of one class.
    """
    labels = train.labels.numpy()
    if validation is None:
        validation = held_out_rows(labels, search.held_out_percent, seed, key=_SHARE, unit=1)
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

    held_out = torch.from_numpy(validation)

    def score(fit: LogisticFit) -> float:
        answers = answers_of(fit.classifier, train, num_classes, held_out)
        predictions = kept_answers(train.labels[held_out], {"": [answers]}, num_classes)
        return accuracies(answers.counts, predictions, headline)[headline].value

    choice = choose_c(fitter(rest, None).fit, score, search.strengths)
    final = fitter(None, choice.fit).fit(choice.c)
    return ChosenFit(final, describe_choice(choice, final, search, headline))
