"""Backbones: torchvision's, and narrower and wider ones."""

import pytest
import torch
import torchvision

from rsa_pretrain.components.backbone import build_backbone, feature_dim, gflops_per_image
from rsa_pretrain.components.settings import BackboneConfig
from rsa_pretrain.plumbing.config.files import parse_tree
from rsa_pretrain.plumbing.errors import UserError


def network(**changes):
    """A ResNet-18's settings with changes."""
    return BackboneConfig(**{"arch": "resnet18", "stem": "standard"} | changes)


@pytest.mark.parametrize("arch", ["resnet18", "resnet34", "resnet50", "resnet101"])
def test_usual_width_is_torchvisions_network(arch):
    """Names, shapes and initial values are torchvision's, bit for bit."""
    torch.manual_seed(0)
    ours = build_backbone(network(arch=arch)).state_dict()
    torch.manual_seed(0)
    theirs = getattr(torchvision.models, arch)(zero_init_residual=True)
    theirs.fc = torch.nn.Identity()
    assert list(ours) == list(theirs.state_dict())
    assert all(torch.equal(ours[name], tensor) for name, tensor in theirs.state_dict().items())


@pytest.mark.parametrize("stem", ["standard", "cifar"])
@pytest.mark.parametrize(("arch", "width"), [("resnet18", 16), ("resnet50", 128)])
def test_every_tensor_scales_with_the_width(arch, stem, width):
    """Every channel count does, but the images' three colours."""
    scaled = build_backbone(network(arch=arch, stem=stem, width=width)).state_dict()
    usual = build_backbone(network(arch=arch, stem=stem)).state_dict()
    assert list(scaled) == list(usual)
    for name, tensor in usual.items():
        channels = [size if size == 3 else size * width // 64 for size in tensor.shape[:2]]
        assert list(scaled[name].shape) == channels + list(tensor.shape[2:]), name


def test_narrow_network_computes_features():
    """Its features and its cost are as its width says."""
    backbone = build_backbone(network(width=16, stem="cifar"))
    features = backbone(torch.randn(2, 3, 16, 16))
    assert features.shape == (2, feature_dim(backbone)) == (2, 128)
    assert gflops_per_image(network(width=16, stem="cifar"), 32) == pytest.approx(
        gflops_per_image(network(stem="cifar"), 32) / 16, rel=0.02
    )


@pytest.mark.parametrize("stem", ["standard", "cifar"])
def test_narrow_stem_has_the_initial_spread_of_its_fan_out(stem):
    """As torchvision's stem at its own width."""
    stem_weights = build_backbone(network(width=128, stem=stem)).conv1.weight
    taps = 128 * stem_weights.shape[-1] ** 2
    assert float(stem_weights.std()) == pytest.approx((2 / taps) ** 0.5, rel=0.05)


def test_name_states_the_width_unless_it_is_torchvisions():
    """A name and a stem give the network back."""
    assert network().name == "resnet18"
    assert network(width=16).name == "resnet18_w16"
    for config in (network(stem="cifar"), network(arch="resnet50", width=128)):
        assert BackboneConfig.named(config.name, config.stem) == config


@pytest.mark.parametrize("width", [0, 4, 12, 512])
def test_refuses_widths_that_no_network_has(width):
    """Widths are multiples of 8 from 8 to 256."""
    tree = {"arch": "resnet18", "stem": "standard", "width": width}
    with pytest.raises(UserError, match="width"):
        parse_tree(BackboneConfig, tree, "x")
