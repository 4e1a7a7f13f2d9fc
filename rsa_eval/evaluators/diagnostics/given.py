"""Measure the geometry of given features."""

import torch

from rsa_eval.evaluators.diagnostics.evaluator import (
    FEWEST_IMAGES,
    describe_mistakes,
    find_classes,
    rank_deviations,
)
from rsa_eval.evaluators.diagnostics.measures import measure
from rsa_eval.evaluators.diagnostics.pictures import draw_rows
from rsa_eval.evaluators.diagnostics.retrieval import find_neighbours
from rsa_eval.evaluators.diagnostics.settings import GivenDiagnosticsConfig
from rsa_eval.evaluators.shared.feature_checks import classes_of
from rsa_eval.features.labelled import LabelledFeatures
from rsa_eval.records.record import Scores
from rsa_pretrain.data.image_set import UNLABELLED
from rsa_pretrain.plumbing.errors import UserError

_LEFT_OUT = "LiDAR, alignment, plots and tables: they need images"


def score_given_diagnostics(
    train: LabelledFeatures,
    test: LabelledFeatures,
    config: GivenDiagnosticsConfig,
    device: torch.device,
) -> tuple[Scores, list[str]]:
    """Measure the test features, and vote on them by the training features.

    The vote is left out if some images have no class, and the details say so.

    Raises:
        UserError: If there are too few test images, or widths or classes do not fit.
    """
    if len(test.labels) < FEWEST_IMAGES:
        raise UserError(
            f"diagnostics need {FEWEST_IMAGES} test images or more, found {len(test.labels)}"
        )
    lack, details, predictions = _lack_of_classes(train, test), {}, None
    if lack is None:
        names = list(map(str, range(classes_of(train, test, config.num_classes))))
        neighbours = find_neighbours(
            train.features, test.features, config.vote.k, config.memory_budget_mib, device
        )
        classes = find_classes(names, train.labels, test.labels, neighbours, config.vote)
        details, predictions = describe_mistakes(classes, config.vote), classes.predictions
    rows = draw_rows(config.num_images, len(test.labels), config.seed)
    measured = measure(test.features[rows].to(device))
    scores = Scores(
        metrics=measured.metrics,
        headline="rankme",
        num_samples=len(test.labels),
        details={
            "feature_width": test.features.shape[1],
            "num_images": min(config.num_images, len(test.labels)),
            "left_out": [_LEFT_OUT, *measured.left_out, *([] if lack is None else [lack])],
            **details,
        },
        predictions=predictions,
    )
    return scores, rank_deviations(config, len(test.labels)) + measured.deviations


def _lack_of_classes(train: LabelledFeatures, test: LabelledFeatures) -> str | None:
    if min(int(train.labels.min()), int(test.labels.min())) == UNLABELLED:
        return "vote and most frequent mistakes: some images have no class"
    if train.labels.min() == train.labels.max():
        return "vote and most frequent mistakes: all training images are of one class"
    return None
