"""Load a detector's trunk: a pretrained backbone, or random weights in its place."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from detection.feeding.samples import initialisation_seed
from detection.recipe.architecture import ModelConfig
from rsa_eval.records.record import Model, describe_checkpoint, describe_random_init
from rsa_pretrain.components.backbone import build_backbone
from rsa_pretrain.components.settings import USUAL_WIDTH, BackboneConfig
from rsa_pretrain.data.sets import data_set
from rsa_pretrain.data.settings import RGB
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.weights.checkpoint import LoadedBackbone
from rsa_pretrain.weights.load import load_weights
from rsa_pretrain.weights.tensor_check import differing


@dataclass(frozen=True)
class Trunk:
    """Weights of a standard-stem ResNet and the pixels they expect."""

    backbone: BackboneConfig
    tensors: dict[str, Tensor]
    """By torchvision's names, without the classifier."""
    mean: RGB
    """Of RGB pixels in [0, 1]."""
    std: RGB
    subject: Model
    """Its description in results."""


def load_trunk(checkpoint: str | Path, model: ModelConfig) -> Trunk:
    """Read the backbone from anything that ``load_weights`` takes.

    Raises:
        UserError: If ``load_weights`` refuses it, its stem does not fit the detector, or the recipe
            asks for another architecture.
    """
    return trunk_of(load_weights(checkpoint), model)


def trunk_of(loaded: LoadedBackbone, model: ModelConfig) -> Trunk:
    """Check that a loaded backbone fits the detector, and describe it.

    Raises:
        UserError: If its stem does not fit the detector, or the recipe asks for another
            architecture.
    """
    refuse_unfit(loaded)
    metadata = loaded.metadata
    if model.arch not in (None, metadata.arch):
        raise UserError(
            f"'{loaded.path}' is a {metadata.arch}, but model.arch is {model.arch}; set "
            f"model.arch={metadata.arch} or null, or give another checkpoint"
        )
    return Trunk(
        backbone=metadata.network,
        tensors=loaded.backbone.state_dict(),
        mean=metadata.mean,
        std=metadata.std,
        subject=describe_checkpoint(loaded),
    )


def refuse_unfit(loaded: LoadedBackbone) -> None:
    """Refuse a backbone that detectron2 has no ResNet for.

    Raises:
        UserError: If its stem is not the standard one, or its width not torchvision's.
    """
    network = loaded.metadata.network
    if network.stem != "standard":
        raise UserError(
            f"'{loaded.path}' has the '{network.stem}' stem; a detector needs the standard 7x7 "
            "stem's strides, so pretrain with backbone.stem=standard"
        )
    if network.width != USUAL_WIDTH:
        raise UserError(
            f"'{loaded.path}' is a {network.name}; a detector needs torchvision's widths, so "
            f"pretrain with backbone.width={USUAL_WIDTH}"
        )


def random_trunk(model: ModelConfig, seed: int) -> Trunk:
    """Initialise a backbone at random, the baseline of every transfer.

    Raises:
        UserError: If the recipe names no architecture or freezes part of it.
    """
    if model.arch is None:
        raise UserError("--random-init needs model.arch, the backbone to build")
    if model.trunk_norm == "FrozenBN" or model.freeze_at > 0:
        raise UserError(
            "--random-init with model.trunk_norm=FrozenBN or model.freeze_at above 0 would keep "
            "random weights fixed; use trunk_norm=BN and freeze_at=0"
        )
    # No residual branch starts at zero, as in detectron2's initialisation.
    backbone = BackboneConfig(arch=model.arch, stem="standard", zero_init_residual=False)
    torch.manual_seed(initialisation_seed(seed))
    mean, std = data_set("imagenet").normalisation  # like every detection recipe
    return Trunk(
        backbone=backbone,
        tensors=build_backbone(backbone).state_dict(),
        mean=mean,
        std=std,
        subject=describe_random_init(backbone),
    )


def check_arrived(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Check bitwise that every backbone tensor inside a detector is the expected one.

    Raises:
        RuntimeError: If one is missing, unexpected or different.
    """
    wrong = differing(found, expected)
    if wrong:
        raise RuntimeError(f"{len(wrong)} backbone tensors were not loaded: {', '.join(wrong[:5])}")
