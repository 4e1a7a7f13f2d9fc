"""Evaluate given features by a linear probe."""

import torch

from rsa_eval.evaluators.linear.batches import ReadOrder
from rsa_eval.evaluators.linear.deviations import probe_deviations
from rsa_eval.evaluators.linear.evaluator import linear_probe
from rsa_eval.evaluators.linear.settings import GivenLinearConfig
from rsa_eval.features.labelled import LabelledFeatures
from rsa_eval.records.record import Scores


def score_given_linear(
    train: LabelledFeatures, test: LabelledFeatures, config: GivenLinearConfig, device: torch.device
) -> tuple[Scores, list[str]]:
    """Return the scores of ``linear_probe`` and the departures from its protocol."""
    probe = config.probe
    scores = linear_probe(
        train, test, probe, num_classes=config.num_classes, seed=config.seed, device=device
    )
    num_trained = len(train.labels) - scores.details.get("num_held_out_images", 0)
    order = ReadOrder(num_trained, probe.batch_size, probe.epochs, config.seed)
    return scores, probe_deviations(config, order.num_steps)
