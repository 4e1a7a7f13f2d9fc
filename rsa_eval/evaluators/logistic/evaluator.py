"""Evaluate features by logistic regression."""

import logging
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from rsa_eval.evaluators.logistic.fit import ChosenC, Fitter, LogisticFit, answers_of, choose_c
from rsa_eval.evaluators.logistic.settings import LogisticConfig, SearchConfig
from rsa_eval.evaluators.shared.answers import kept_answers
from rsa_eval.evaluators.shared.deviations import DINOV2, common_deviations, settings_deviations
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

_log = logging.getLogger(__name__)

_DINOV2_RESIZE = 224
"""Short side in dinov2/eval/log_regression.py; its linear probe has the usual 256."""


def logistic_deviations(config: LogisticConfig) -> list[str]:
    """List the departures of a logistic regression."""
    deviations = common_deviations(config, DINOV2)
    if config.data.eval_resize not in (None, _DINOV2_RESIZE):
        deviations.append(
            f"short side resized to {config.data.eval_resize} (protocol: {_DINOV2_RESIZE})"
        )
    return deviations + search_deviations(config.search)


def search_deviations(search: SearchConfig) -> list[str]:
    """List the departures of the search for C and of the fit."""
    return [
        *settings_deviations(search, SearchConfig()),
        f"preconditioned L-BFGS, tolerance {search.tolerance:g} (protocol: cuML's, 1e-12)",
        "held out by class (protocol: of all images alike)",
    ]


_PUBLISHED_SEARCH = SearchConfig()


def evaluate_logistic(subject: Subject, config: LogisticConfig, workspace: Workspace) -> Result:
    """Choose C on held-out training images, refit on all training images, and test once.

    Raises:
        UserError: If the data cannot be used.
    """
    train, test = open_splits(config)
    with frozen(subject.backbone):
        train_features = stored_features(subject, train, config, "train features")
        test_features = stored_features(subject, test, config, "test features")
    scores = logistic_regression(
        train_features,
        test_features,
        config.search,
        num_classes=len(train.class_names),
        seed=config.seed,
        device=subject.device,
    )
    return scores.result(
        {"images": describe_images(train, test)}, logistic_deviations(config), test.keys()
    )


def logistic_regression(
    train: LabelledFeatures,
    test: LabelledFeatures,
    search: SearchConfig = _PUBLISHED_SEARCH,
    *,
    num_classes: int | None = None,
    seed: int = 0,
    device: torch.device | None = None,
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

    Returns:
        ``top1`` and, for more than five classes, ``top5`` in percent; the chosen ``C`` and the
        accuracy of every other in ``details``.

    Raises:
        UserError: If an image has no class, widths differ, or no image can be held out.
    """
    num_classes = classes_of(train, test, num_classes)
    fitted = fit_chosen(train, search, num_classes=num_classes, seed=seed, device=device)
    answers = answers_of(fitted.fit.classifier, test, num_classes)
    return Scores(
        metrics=accuracy_metrics(answers.counts, num_classes),
        headline="top1",
        num_samples=len(test.labels),
        details=fitted.details(),
        predictions=kept_answers(test.labels, {"": [answers]}, num_classes),
    )


@dataclass(frozen=True)
class ChosenFit:
    """A fit to all training images, with the C chosen on held-out ones."""

    choice: ChosenC
    fit: LogisticFit
    warnings: list[str]

    def details(self) -> dict[str, Any]:
        """Return the choice and the convergence, for a record's details."""
        warned = {WARNINGS: self.warnings} if self.warnings else {}
        return _details(self.choice, self.fit) | warned


def fit_chosen(
    train: LabelledFeatures,
    search: SearchConfig = _PUBLISHED_SEARCH,
    *,
    num_classes: int,
    seed: int = 0,
    device: torch.device | None = None,
) -> ChosenFit:
    """Choose C on held-out training images, and fit all training images with it.

    Args:
        train: As for ``logistic_regression``, each with a class.
        search: As for ``logistic_regression``.
        num_classes: Number of classes.
        seed: Seeds the choice of held-out images.
        device: Where to compute; None computes where the features are.

    Raises:
        UserError: If no image can be held out, or all are of one class.
    """
    labels, key = train.labels.numpy(), "search.held_out_percent"
    held_out = held_out_rows(labels, search.held_out_percent, seed, key=key, unit=1)
    rest = np.setdiff1d(np.arange(len(labels)), held_out)

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
        fitter(rest, None), train, search.strengths, num_classes, torch.from_numpy(held_out)
    )
    final = fitter(None, choice.fit).fit(choice.c)
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
    return ChosenFit(choice, final, warnings)


def _warnings(choice: ChosenC, final: LogisticFit, search: SearchConfig) -> list[str]:
    found = []
    if choice.at_edge:
        found.append(
            f"the best C is at the edge of the range tried, {search.strengths[0]:g} to "
            f"{search.strengths[-1]:g}; widen search.min_exponent and search.max_exponent"
        )
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
