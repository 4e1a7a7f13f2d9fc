"""Prove that detectron2's own network computes torchvision's features."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import CfgNode, get_cfg
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_resnet_backbone
from torch import Tensor, nn

from detection.exchange.trunk_names import BATCH_COUNT, features_of
from detection.recipe.architecture import RegionMaps
from rsa_pretrain.weights.tensor_check import differing

STAGES = ("res2", "res3", "res4", "res5")
# Relative to the stage's largest value. Measured 0; other kernels may round differently.
MAX_FEATURE_DIFFERENCE = 1e-5
_IMAGE_SIZE_PIXELS = 96


def build_trunk(config_tree: Mapping[str, Any]) -> nn.Module:
    """Build detectron2's ResNet.

    Args:
        config_tree: detectron2 keys that differ from its defaults, nested.
    """
    config = get_cfg()
    config.MODEL.RESNETS.OUT_FEATURES = list(STAGES)
    config.MODEL.BACKBONE.FREEZE_AT = 0
    config.merge_from_other_cfg(CfgNode(dict(config_tree)))
    trunk: nn.Module = build_resnet_backbone(config, ShapeSpec(channels=3))
    return trunk


def in_detector(trunk: nn.Module, features: RegionMaps) -> nn.Module:
    """Place a trunk's modules where a detector has them, so that its full names are theirs."""
    if features == "FPN":
        return nn.ModuleDict({"backbone": nn.ModuleDict({"bottom_up": trunk})})
    stages = dict(trunk.named_children())
    last = nn.ModuleDict({"res5": stages.pop("res5")})
    return nn.ModuleDict({"backbone": nn.ModuleDict(stages), "roi_heads": last})


def load_weights_file(placed: nn.Module, weights: Path, model: Mapping[str, Tensor]) -> None:
    """Load a weights file with detectron2's own checkpointer and check every tensor.

    detectron2 only warns about mismatches, so the result is compared with the file's expected
    content.

    Args:
        placed: As ``in_detector`` returns it.
        weights: A file of this toolkit; detectron2 unpickles it.
        model: Its tensors by full name.

    Raises:
        RuntimeError: If a tensor was not loaded, or one of the file was not used.
    """
    DetectionCheckpointer(placed).load(str(weights))
    state = {
        name: tensor
        for name, tensor in placed.state_dict().items()
        if not name.endswith(f".{BATCH_COUNT}")
    }
    wrong = differing(state, model)
    if wrong:
        raise RuntimeError(f"detectron2 did not load {len(wrong)} tensors of '{weights}': {wrong}")


def feature_differences(
    weights: Path,
    config_tree: Mapping[str, Any],
    model: Mapping[str, Tensor],
    backbone: nn.Module,
) -> dict[str, float]:
    """Compare res2 … res5 with torchvision's layer1 … layer4 on a random image, in eval mode.

    Args:
        weights: Converted weights.
        config_tree: The detectron2 keys paired with them.
        model: Their tensors by full name.
        backbone: The torchvision ResNet they came from.

    Returns:
        Per stage, the largest absolute difference divided by the stage's largest value.
    """
    trunk = build_trunk(config_tree)
    load_weights_file(in_detector(trunk, features_of(model)), weights, model)
    images = torch.randn(
        1, 3, _IMAGE_SIZE_PIXELS, _IMAGE_SIZE_PIXELS, generator=torch.Generator().manual_seed(0)
    )
    with torch.no_grad():
        found = trunk.eval()(images)
        expected = dict(zip(STAGES, _torchvision_stages(backbone.eval(), images), strict=True))
    return {
        stage: float((found[stage] - expected[stage]).abs().max() / expected[stage].abs().max())
        for stage in STAGES
    }


def _torchvision_stages(backbone: nn.Module, images: Tensor) -> Iterator[Tensor]:
    features = images
    for name, module in backbone.named_children():
        if name in ("avgpool", "fc"):
            return
        features = module(features)
        if name.startswith("layer"):
            yield features
