"""Dilated stages, against torchvision's own."""

import narrow
import pytest
import torch
from torch import nn
from torchvision.models.resnet import Bottleneck, ResNet

from rsa_eval.features.dilation import dilated
from rsa_pretrain.components.backbone import build_backbone, last_stage_map
from rsa_pretrain.components.settings import BackboneConfig

FULL = BackboneConfig(arch="resnet50", stem="standard", zero_init_residual=False, width=16)
# Which of layer2, layer3 and layer4 torchvision dilates.
REPLACED = {8: [False, True, True], 16: [False, False, True], 32: [False, False, False]}


@pytest.fixture
def resnet50() -> nn.Module:
    """A whole ResNet-50 of a quarter of the width, whatever the other tests take."""
    with narrow.narrow_resnets(False):
        torch.manual_seed(0)
        return build_backbone(FULL).eval()


@torch.no_grad()
@pytest.mark.parametrize("output_stride", REPLACED)
def test_maps_are_torchvisions(resnet50: nn.Module, output_stride: int) -> None:
    """The same tensors in ``replace_stride_with_dilation`` give the same map, bit for bit."""
    expected = ResNet(
        Bottleneck, [3, 4, 6, 3], replace_stride_with_dilation=REPLACED[output_stride]
    )
    expected.fc = nn.Identity()
    # torchvision's strides, on the tensors of the network of a quarter of the width.
    for name, module in resnet50.named_modules():
        if isinstance(module, nn.Conv2d):
            other = expected.get_submodule(name)
            other.weight = module.weight
        elif isinstance(module, nn.BatchNorm2d):
            parent, _, own = name.rpartition(".")
            setattr(expected.get_submodule(parent), own, module)
    images = torch.randn(2, 3, 64, 96)
    with dilated(resnet50, output_stride):
        found = last_stage_map(resnet50, images)
    expected.eval()
    assert found.shape == (2, 512, 64 // output_stride, 96 // output_stride)
    assert torch.equal(found, last_stage_map(expected, images))


@torch.no_grad()
def test_afterwards_all_is_as_before(resnet50: nn.Module) -> None:
    """Strides, dilations and features come back, after an error too."""
    images = torch.randn(1, 3, 64, 64)
    before = resnet50(images)
    with dilated(resnet50, 8):
        assert not torch.equal(resnet50(images), before)
    assert torch.equal(resnet50(images), before)
    with pytest.raises(RuntimeError, match="Given groups"), dilated(resnet50, 8):
        resnet50(images[:, :1])
    assert torch.equal(resnet50(images), before)


@torch.no_grad()
@pytest.mark.parametrize(("stem", "output_stride", "side"), [("cifar", 8, 4), ("cifar", 32, 4)])
def test_a_network_that_strides_less_is_left_alone(
    stem: str, output_stride: int, side: int
) -> None:
    """The stem for small images strides not at all, so its last map has a place for 8 pixels."""
    config = BackboneConfig(arch="resnet18", stem=stem, zero_init_residual=False)  # type: ignore[arg-type]
    backbone = build_backbone(config).eval()
    images = torch.randn(1, 3, 32, 32)
    before = last_stage_map(backbone, images)
    with dilated(backbone, output_stride):
        assert torch.equal(last_stage_map(backbone, images), before)
    assert before.shape[2:] == (side, side)


@torch.no_grad()
def test_basic_blocks_are_dilated_too() -> None:
    """Torchvision refuses them; the map of a ResNet-18 has the places that were asked for.

    Its pooled features average a finer map of the same filters.
    """
    config = BackboneConfig(arch="resnet18", stem="standard", zero_init_residual=False)
    backbone = build_backbone(config).eval()
    for output_stride in (8, 16, 32):
        with dilated(backbone, output_stride):
            found = last_stage_map(backbone, torch.randn(1, 3, 64, 64))
        assert found.shape[2:] == (64 // output_stride, 64 // output_stride)
