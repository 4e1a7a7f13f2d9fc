"""Train classifiers on several draws of few labels."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor
from torch.nn import functional

from rsa_eval.evaluators.logistic.fit import Fitter, answers_of
from rsa_eval.evaluators.low_shot.settings import ClassifierConfig
from rsa_eval.evaluators.shared.metrics import Answers
from rsa_eval.evaluators.shared.settings import Subset
from rsa_eval.evaluators.shared.subsets import Rows, class_counts
from rsa_eval.features.labelled import LabelledFeatures
from rsa_eval.records.mean_std import MeanStd


@dataclass(frozen=True)
class Draw:
    """One subset of the training images.

    Attributes:
        subset: The setting it follows.
        seed: Seed of the draw; None for a list or all images.
        rows: Indices of its training images, in increasing order.
    """

    subset: Subset
    seed: int | None
    rows: Rows


@dataclass(frozen=True)
class DrawResult:
    """A classifier trained on one draw."""

    draw: Draw
    labels: Tensor
    """Class indices of the draw, int64 (N,)."""
    answers: Answers
    """To the test images."""
    converged: bool
    iterations: int


def draw_all(
    rows_of: Callable[[Subset, int], Rows], subsets: Sequence[Subset], seeds: Sequence[int]
) -> list[Draw]:
    """Draw every subset once per seed, and take each list, and all images, once.

    Args:
        rows_of: Returns the training images that a subset takes, by its seed.
        subsets: Subsets to draw.
        seeds: Seeds of the draws.

    Raises:
        UserError: If there are too few images.
    """
    return [
        Draw(subset, seed if subset.is_drawn else None, rows_of(subset, seed))
        for subset in subsets
        for seed in (seeds if subset.is_drawn else seeds[:1])
    ]


def drawn_rows(draws: list[Draw]) -> Rows:
    """Return the rows that occur in any draw, in increasing order."""
    return np.unique(np.concatenate([draw.rows for draw in draws]))


def centred_to_unit_norm(features: Tensor) -> Tensor:
    """Subtract from each row its own mean and divide it by its norm, as MSN does."""
    return functional.normalize(features - features.mean(dim=1, keepdim=True), dim=1)


def train_and_test(
    draw: Draw,
    train: LabelledFeatures,
    test: LabelledFeatures,
    classifier: ClassifierConfig,
    num_classes: int,
) -> DrawResult:
    """Fit a classifier on one draw and classify the test images.

    Args:
        draw: The training images.
        train: Their features, in the draw's order.
        test: Features of the test images.
        classifier: Settings of the fit.
        num_classes: Number of classes.
    """
    fitter = Fitter(
        train,
        max_iterations=classifier.max_iterations,
        tolerance=classifier.tolerance,
        intercept=False,
    )
    fit = fitter.fit(classifier.c)
    answers = answers_of(fit.classifier, test, num_classes)
    return DrawResult(draw, train.labels, answers, fit.converged, fit.iterations)


def describe_runs(runs: list[DrawResult], num_classes: int) -> dict[str, Any]:
    """Summarise one subset's runs for a record; accuracies in percent.

    Args:
        runs: Runs of the same subset.
        num_classes: Number of classes.
    """
    top1 = MeanStd.of([run.answers.counts.top1_percent for run in runs])
    return {
        "subset": runs[0].draw.subset.name,
        "count": len(runs[0].labels),
        **class_counts(runs[0].labels.tolist()),
        "top1_mean": top1.mean,
        "top1_std": top1.std,
        "runs": [
            {
                "seed": run.draw.seed,
                **run.answers.counts.percentages(num_classes),
                "converged": run.converged,
                "iterations": run.iterations,
            }
            for run in runs
        ],
    }
