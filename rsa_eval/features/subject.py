"""Load the backbone to evaluate: a checkpoint's, or one with random weights."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from rsa_eval.config import EvaluationConfig
from rsa_eval.features.forward import placed
from rsa_eval.records.record import Model, describe_checkpoint, describe_random_init
from rsa_pretrain.components.backbone import build_backbone
from rsa_pretrain.components.settings import BackboneConfig
from rsa_pretrain.data.open_images import normalisation
from rsa_pretrain.data.settings import RGB
from rsa_pretrain.plumbing.config.files import to_tree
from rsa_pretrain.plumbing.device import check_precision, resolve_device
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.weights.foreign.layout import Pixels
from rsa_pretrain.weights.foreign.load import load_weights
from rsa_pretrain.weights.metadata import BackboneMetadata


@dataclass(frozen=True)
class Subject:
    """A backbone and the pixel statistics its weights expect."""

    backbone: nn.Module
    mean: RGB
    std: RGB
    model: Model

    @property
    def device(self) -> torch.device:
        """The backbone's device."""
        return next(self.backbone.parameters()).device


def load_subject(checkpoint: Path | None, config: EvaluationConfig) -> Subject:
    """Load a checkpoint's backbone, or build a random one, on the device of the evaluation.

    The statistics that normalise the input belong to the weights, so they come from the checkpoint.
    Random weights, and files of other projects that state none, take the data set's.

    Args:
        checkpoint: Anything ``load_weights`` takes; None for random weights, seeded.
        config: The evaluation.

    Raises:
        UserError: If the device is missing or does not support the precision, the checkpoint is
            unusable or contradicts the config, or random weights lack an architecture.
    """
    device = resolve_device(config.device)
    check_precision(config.precision, device)
    if checkpoint is not None:
        loaded = load_weights(checkpoint, Pixels(*normalisation(config.data)))
        _check_agreement(config, loaded.metadata, loaded.path)
        metadata = loaded.metadata
        model = describe_checkpoint(loaded)
        return Subject(placed(loaded.backbone, device), metadata.mean, metadata.std, model)
    if config.backbone is None:
        raise UserError(
            "random weights need an architecture; set backbone.arch and backbone.stem, "
            "for example backbone.arch=resnet18 backbone.stem=cifar"
        )
    network = BackboneConfig(**to_tree(config.backbone))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        backbone = build_backbone(network)
    mean, std = normalisation(config.data)
    return Subject(placed(backbone.eval(), device), mean, std, describe_random_init(network))


def _check_agreement(config: EvaluationConfig, metadata: BackboneMetadata, path: Path) -> None:
    stated: dict[str, tuple[object, ...]] = {
        "data.mean": (config.data.mean, metadata.mean),
        "data.std": (config.data.std, metadata.std),
    }
    if config.backbone is not None:
        for key in ("arch", "width", "stem"):
            stated[f"backbone.{key}"] = tuple(
                getattr(each, key) for each in (config.backbone, metadata.network)
            )
    for key, (found, expected) in stated.items():
        if found is not None and found != expected:
            raise UserError(
                f"{key} is set to {found}, but the weights in '{path}' expect {expected}; "
                f"leave {key} out"
            )
