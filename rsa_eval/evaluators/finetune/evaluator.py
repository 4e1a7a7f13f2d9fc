"""Evaluate a backbone by fine-tuning."""

from dataclasses import dataclass
from typing import Any

import torch

from rsa_eval.evaluators.finetune.search import choose_cell
from rsa_eval.evaluators.finetune.settings import FINETUNE_PROTOCOLS, FinetuneConfig
from rsa_eval.evaluators.finetune.task import TuningTask, has_published_validation, open_tasks
from rsa_eval.evaluators.finetune.training import classify, fine_tune
from rsa_eval.evaluators.finetune.tuning import Tuning, shares_batchnorm
from rsa_eval.evaluators.shared.deviations import (
    USUAL,
    Extraction,
    common_deviations,
    setting_text,
    settings_deviations,
)
from rsa_eval.evaluators.shared.subsets import subset_rows
from rsa_eval.features.subject import Subject
from rsa_eval.records.record import Result
from rsa_eval.records.workspace import Workspace
from rsa_pretrain.plumbing.distributed import world_size

_BYOL = Extraction("bicubic")
_BYOL_SQUARE = (256, 224)
"""Short side of the resized test image and side of the centre crop (Appendix D.3)."""


@dataclass(frozen=True)
class FinetunedNetwork:
    """A network fine-tuned on the labelled images.

    Attributes:
        tuning: The finished training.
        details: Details of the search and the training, for a record.
        deviations: Departures from the protocol.
    """

    tuning: Tuning
    details: dict[str, Any]
    deviations: list[str]


def evaluate_finetune(subject: Subject, config: FinetuneConfig, workspace: Workspace) -> Result:
    """Fine-tune a copy of the backbone and test it once, after the last step.

    Raises:
        UserError: If the data cannot be used, or the training diverges.
        Stopped: If a signal stopped the training; the same call resumes it.
    """
    train, test = open_tasks(config)
    network = fine_tune_chosen(subject, train, config, workspace)
    scores = classify(subject, network.tuning, test, "test features")
    details = network.details | train.describe(test)
    return scores.result(details, network.deviations, test.images.keys())


def fine_tune_chosen(
    subject: Subject, train: TuningTask, config: FinetuneConfig, workspace: Workspace
) -> FinetunedNetwork:
    """Fine-tune a copy of the backbone on the labelled training images.

    With a grid, rate and decay are chosen on validation images before; the final training has all
    labelled images.

    Args:
        subject: Backbone and its pixel statistics.
        train: Training images.
        config: The evaluation.
        workspace: Where the states are kept.

    Raises:
        UserError: If the data cannot be used, or the training diverges.
        Stopped: If a signal stopped the training; the same call resumes it.
    """
    labelled = _labelled(train, config)
    choice = choose_cell(subject, labelled, config, workspace)
    tuning = fine_tune(subject, labelled, choice.config, workspace.state)
    details = {
        "loss_by_epoch": tuning.losses,
        **choice.details,
        "labelled": {
            "count": len(labelled.images),
            **labelled.class_sizes(),
            "sha256": labelled.images.fingerprint(),
        },
    }
    return FinetunedNetwork(tuning, details, _deviations(config, subject.device))


def _labelled(train: TuningTask, config: FinetuneConfig) -> TuningTask:
    if config.subset is None:
        return train
    return train.select(subset_rows(train.images, config.subset, config.subset_seed))


def _deviations(config: FinetuneConfig, device: torch.device) -> list[str]:
    deviations = finetune_deviations(config)
    if world_size() > 1 and not shares_batchnorm(config.tuning, device):
        deviations.append(
            f"BatchNorm statistics of {world_size()} processes apart (protocol: shared)"
        )
    return deviations


def finetune_deviations(config: FinetuneConfig) -> list[str]:
    """List the departures of fine-tuning, except those due to several processes."""
    published = FINETUNE_PROTOCOLS[config.protocol]
    # No protocol has one share for all data sets.
    share = {"held_out_percent": config.grid.held_out_percent}
    deviations = [
        *common_deviations(config, _BYOL if config.protocol == "byol" else USUAL),
        *settings_deviations(config.tuning, published.tuning),
        *settings_deviations(config.grid, published.grid.model_copy(update=share)),
    ]
    if published.subset is None:
        return deviations + _byol_deviations(config)
    if config.subset is None:
        deviations.append(f"all labels (protocol: {published.subset.name})")
    elif config.subset.list_file is None:
        if config.subset != published.subset:
            deviations.append(f"labels {config.subset.name} (protocol: {published.subset.name})")
        if config.data.name == "imagenet":
            deviations.append("labels drawn at random (protocol: those of SimCLR's lists)")
    return deviations


def _byol_deviations(config: FinetuneConfig) -> list[str]:
    """List the departures in labels, validation and test images."""
    deviations = []
    if config.subset is not None:
        deviations.append(f"labels {config.subset.name} (protocol: all)")
    grid = config.grid
    if grid.is_searched and not has_published_validation(config):
        of = "each class" if config.multi_label is None else "all images"
        deviations.append(
            f"{grid.held_out_percent:g} % of {of} drawn for validation (protocol: its authors' own "
            "draw)"
        )
    square = (config.data.eval_resize, config.data.image_size)
    if square != _BYOL_SQUARE:
        short, side = (setting_text(value) for value in square)
        deviations.append(f"short side {short}, centre crop {side} (protocol: 256 and 224)")
    return deviations
