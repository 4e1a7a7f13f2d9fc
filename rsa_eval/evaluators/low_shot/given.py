"""Evaluate given features by classification from few labels."""

import torch

from rsa_eval.evaluators.low_shot.evaluator import draw_deviations, low_shot
from rsa_eval.evaluators.low_shot.settings import GivenLowShotConfig
from rsa_eval.features.labelled import LabelledFeatures
from rsa_eval.records.record import Scores


def score_given_low_shot(
    train: LabelledFeatures,
    test: LabelledFeatures,
    config: GivenLowShotConfig,
    device: torch.device,
) -> tuple[Scores, list[str]]:
    """Return the scores of ``low_shot`` and the departures from its protocol."""
    scores = low_shot(
        train,
        test,
        config.subsets,
        config.subset_seeds,
        config.classifier,
        num_classes=config.num_classes,
    )
    return scores, draw_deviations(config)
