"""Evaluate given features by nearest neighbours."""

import torch

from rsa_eval.evaluators.knn.evaluator import knn, vote_deviations
from rsa_eval.evaluators.knn.settings import GivenKNNConfig
from rsa_eval.features.labelled import LabelledFeatures
from rsa_eval.records.record import Scores


def score_given_knn(
    train: LabelledFeatures, test: LabelledFeatures, config: GivenKNNConfig, device: torch.device
) -> tuple[Scores, list[str]]:
    """Return the scores of ``knn`` and the departures from its protocol."""
    scores = knn(
        train,
        test,
        config.settings,
        num_classes=config.num_classes,
        memory_budget_mib=config.memory_budget_mib,
        device=device,
    )
    return scores, vote_deviations(config, len(train.labels))
