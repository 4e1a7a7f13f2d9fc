"""ResNet builders: torchvision's networks without their classifier."""

import torch
import torchvision
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from rsa_pretrain.config import BackboneConfig


def build_backbone(config: BackboneConfig) -> nn.Module:
    """Build a ResNet whose forward maps images to pooled features.

    Names and shapes of its tensors are torchvision's, without ``fc``.

    Args:
        config: Architecture, stem and initialisation.

    Returns:
        Module from normalised images, (N, 3, H, W), to features, (N, ``feature_dim``).
    """
    builder = getattr(torchvision.models, config.arch)
    backbone: nn.Module = builder(weights=None, zero_init_residual=config.zero_init_residual)
    backbone.fc = nn.Identity()
    if config.stem == "cifar":
        conv1 = nn.Conv2d(3, 64, kernel_size=3, stride=1, padding=1, bias=False)
        nn.init.kaiming_normal_(conv1.weight, mode="fan_out", nonlinearity="relu")
        backbone.conv1 = conv1
        backbone.maxpool = nn.Identity()
    return backbone


def feature_dim(backbone: nn.Module) -> int:
    """Return the width of the backbone's features."""
    last_block = backbone.get_submodule("layer4")[-1]  # type: ignore[index]
    last_norm = last_block.bn3 if hasattr(last_block, "bn3") else last_block.bn2
    return int(last_norm.num_features)


def gflops_per_image(config: BackboneConfig, image_size: int) -> float:
    """Count the floating-point operations of one forward pass of one square image, in 1e9.

    A multiply-add is two operations.
    """
    with torch.device("meta"):
        backbone = build_backbone(config).eval()
        with FlopCounterMode(display=False) as counter:
            backbone(torch.zeros(1, 3, image_size, image_size))
    return float(counter.get_total_flops()) / 1e9
