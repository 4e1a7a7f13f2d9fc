"""Evaluate given features by linear support vector machines."""

import torch

from rsa_eval.evaluators.svm.evaluator import linear_svm, one_class_deviations
from rsa_eval.evaluators.svm.settings import GivenSVMConfig
from rsa_eval.features.labelled import LabelledFeatures
from rsa_eval.records.record import Scores


def score_given_svm(
    train: LabelledFeatures, test: LabelledFeatures, config: GivenSVMConfig, device: torch.device
) -> tuple[Scores, list[str]]:
    """Return the scores of ``linear_svm`` and the departures from its protocol."""
    names = None if config.num_classes is None else list(map(str, range(config.num_classes)))
    scores = linear_svm(train, test, config.machine, class_names=names, seed=config.seed)
    return scores, one_class_deviations(config.machine)
