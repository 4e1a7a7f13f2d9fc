"""The layout in which networks are trained: never one in which oneDNN writes past its workspace."""

import pytest
import torch
from torch import nn

from rsa_pretrain.components.backbone import build_backbone
from rsa_pretrain.components.memory_layout import training_layout
from rsa_pretrain.components.settings import BackboneConfig

CPU = torch.device("cpu")
STRIDED = {"kernel_size": 1, "stride": 2}


@pytest.mark.parametrize(
    ("arch", "width", "device", "layout"),
    [
        ("resnet18", 64, "cpu", torch.channels_last),
        ("resnet18", 16, "cpu", torch.channels_last),
        ("resnet18", 8, "cpu", torch.contiguous_format),
        ("resnet50", 8, "cpu", torch.channels_last),
        ("resnet18", 8, "cuda", torch.channels_last),
    ],
)
def test_resnets_by_width(arch, width, device, layout):
    """Only the narrowest has such a convolution; a GPU has no such fault."""
    network = build_backbone(BackboneConfig(arch=arch, stem="cifar", width=width))
    assert training_layout(network, torch.device(device)) is layout


@pytest.mark.parametrize(
    ("layer", "layout"),
    [
        (nn.Conv2d(15, 32, **STRIDED), torch.contiguous_format),
        (nn.Conv2d(15, 32, kernel_size=1, stride=(1, 2)), torch.contiguous_format),
        (nn.Conv2d(32, 32, groups=4, **STRIDED), torch.contiguous_format),
        (nn.Conv2d(16, 32, **STRIDED), torch.channels_last),
        (nn.Conv2d(4, 32, kernel_size=1), torch.channels_last),
        (nn.Conv2d(3, 32, kernel_size=3, stride=2), torch.channels_last),
        (nn.Linear(4, 4), torch.channels_last),
    ],
)
def test_layers(layer, layout):
    """A strided 1x1 convolution of fewer than 16 channels a group, and nothing else, matters."""
    assert training_layout(nn.Sequential(nn.ReLU(), layer), CPU) is layout


def test_gradients_of_a_narrow_shortcut_in_its_layout():
    """Equal to those in float64; channels last, torch 2.14 crashes here on a CPU with AVX2."""
    torch.manual_seed(0)
    shortcut = nn.Conv2d(4, 8, bias=False, **STRIDED)
    layout = training_layout(shortcut, CPU)
    shortcut.to(memory_format=layout)
    exact = nn.Conv2d(4, 8, bias=False, **STRIDED).double()
    exact.load_state_dict(shortcut.state_dict())
    for _ in range(20):
        images = torch.randn(32, 4, 32, 32).contiguous(memory_format=layout)
        shortcut(images).square().sum().backward()
        exact(images.double()).square().sum().backward()
    torch.testing.assert_close(shortcut.weight.grad.double(), exact.weight.grad, rtol=1e-5, atol=0)
