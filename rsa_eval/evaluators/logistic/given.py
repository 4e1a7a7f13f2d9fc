"""Evaluate given features by logistic regression."""

import torch

from rsa_eval.evaluators.logistic.deviations import search_deviations
from rsa_eval.evaluators.logistic.evaluator import score_features
from rsa_eval.evaluators.logistic.settings import GivenLogisticConfig
from rsa_eval.evaluators.shared.labelled_images import headline_of
from rsa_eval.features.labelled import LabelledFeatures
from rsa_eval.records.record import Scores


def score_given_logistic(
    train: LabelledFeatures,
    test: LabelledFeatures,
    config: GivenLogisticConfig,
    device: torch.device,
) -> tuple[Scores, list[str]]:
    """Return the scores of ``logistic_regression`` and the departures from its protocol."""
    scores = score_features(
        train,
        test,
        config,
        num_classes=config.num_classes,
        seed=config.seed,
        device=device,
        headline=headline_of(config.data_set),
    )
    return scores, search_deviations(config)
