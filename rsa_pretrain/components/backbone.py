"""Build torchvision's ResNets without their classifier."""

from collections.abc import Sequence
from typing import get_args

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

from rsa_pretrain.components.settings import USUAL_WIDTH, Arch, BackboneConfig, Stage

_BLOCKS: dict[Arch, tuple[type[BasicBlock | Bottleneck], list[int]]] = {
    "resnet18": (BasicBlock, [2, 2, 2, 2]),
    "resnet34": (BasicBlock, [3, 4, 6, 3]),
    "resnet50": (Bottleneck, [3, 4, 6, 3]),
    "resnet101": (Bottleneck, [3, 4, 23, 3]),
}


class _ScaledResNet(ResNet):  # type: ignore[misc]  # torchvision is untyped
    """torchvision's ResNet whose stages have another number of channels; the stem keeps its own."""

    def __init__(self, config: BackboneConfig) -> None:
        self._width = config.width
        block, depths = _BLOCKS[config.arch]
        super().__init__(block, depths, zero_init_residual=config.zero_init_residual)

    def _make_layer(
        self,
        block: type[BasicBlock | Bottleneck],
        planes: int,
        blocks: int,
        stride: int = 1,
        dilate: bool = False,
    ) -> nn.Sequential:
        if not hasattr(self, "layer1"):
            self.inplanes = self._width  # what the stem will give
        scaled = planes * self._width // USUAL_WIDTH
        stage: nn.Sequential = super()._make_layer(block, scaled, blocks, stride, dilate)
        return stage


def build_backbone(config: BackboneConfig) -> nn.Module:
    """Build a ResNet whose forward maps images to pooled features.

    Tensor names are torchvision's, without ``fc``, and so are the shapes at width 64.

    Args:
        config: Architecture, width, stem and initialisation.

    Returns:
        Module from normalised images, (N, 3, H, W), to features, (N, ``feature_dim``).
    """
    backbone = _ScaledResNet(config)
    backbone.fc = nn.Identity()
    if config.stem == "cifar":
        backbone.conv1 = nn.Conv2d(3, config.width, 3, stride=1, padding=1, bias=False)
        backbone.maxpool = nn.Identity()
    elif config.width != USUAL_WIDTH:
        backbone.conv1 = nn.Conv2d(3, config.width, 7, stride=2, padding=3, bias=False)
    if config.width != USUAL_WIDTH:
        backbone.bn1 = nn.BatchNorm2d(config.width)
    if config.stem_init == "default":
        backbone.conv1.reset_parameters()
    elif config.stem == "cifar" or config.width != USUAL_WIDTH:
        nn.init.kaiming_normal_(backbone.conv1.weight, mode="fan_out", nonlinearity="relu")
    return backbone


def pooled_stages(backbone: nn.Module, images: Tensor, stages: Sequence[Stage]) -> Tensor:
    """Return the outputs of some stages, average-pooled over the image and concatenated.

    For ``layer4`` alone these equal the backbone's features bit for bit.

    Args:
        backbone: As built by ``build_backbone``.
        images: Normalised images, (N, 3, H, W).
        stages: Which stages, each once, in output order.

    Returns:
        (N, sum of the stages' ``feature_dim``).
    """
    maps = _after_stem(backbone, images)
    pooled: dict[str, Tensor] = {}
    for stage in get_args(Stage):
        maps = backbone.get_submodule(stage)(maps)
        if stage in stages:
            pooled[stage] = backbone.get_submodule("avgpool")(maps).flatten(1)
        if len(pooled) == len(stages):
            break
    return torch.cat([pooled[stage] for stage in stages], dim=1)


def last_stage_map(backbone: nn.Module, images: Tensor) -> Tensor:
    """Return the output of the last stage, before the pooling.

    Args:
        backbone: As built by ``build_backbone``.
        images: Normalised images, (N, 3, H, W).

    Returns:
        (N, ``feature_dim``, h, w); 32 pixels a place with the standard stem, 8 with cifar's.
    """
    maps = _after_stem(backbone, images)
    for stage in get_args(Stage):
        maps = backbone.get_submodule(stage)(maps)
    return maps


def _after_stem(backbone: nn.Module, images: Tensor) -> Tensor:
    maps = images
    for name in ("conv1", "bn1", "relu", "maxpool"):
        maps = backbone.get_submodule(name)(maps)
    return maps


def feature_dim(backbone: nn.Module, stage: Stage = "layer4") -> int:
    """Return the width of a stage's output; the last stage gives the backbone's features."""
    last_block = backbone.get_submodule(stage)[-1]  # type: ignore[index]
    last_norm = last_block.bn3 if hasattr(last_block, "bn3") else last_block.bn2
    return int(last_norm.num_features)


def gflops_per_image(config: BackboneConfig, image_size: int) -> float:
    """Count the floating-point operations, in 1e9, of a forward pass on one square image.

    A multiply-add is two operations.
    """
    with torch.device("meta"):
        backbone = build_backbone(config).eval()
        with FlopCounterMode(display=False) as counter:
            backbone(torch.zeros(1, 3, image_size, image_size))
    return float(counter.get_total_flops()) / 1e9
