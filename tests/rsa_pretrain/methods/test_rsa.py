import copy

import pytest
import torch

from rsa_pretrain.components.backbone import build_backbone
from rsa_pretrain.components.settings import BackboneConfig
from rsa_pretrain.methods.rsa import RSA
from rsa_pretrain.methods.settings import RSAConfig


def small_rsa(**settings):
    """RSA over ResNet-18 with narrow heads, in float64."""
    config = RSAConfig(
        **{"name": "rsa", "hidden_dim": 12, "output_dim": 6, "beta_base": 0.4} | settings
    )
    backbone = build_backbone(BackboneConfig(arch="resnet18", stem="standard"))
    return RSA(backbone, config).double().train()


def random_views(num_images=4):
    """Four float64 views of 32 px."""
    return [torch.randn(num_images, 3, 32, 32, dtype=torch.float64) for _ in range(4)]


def test_no_gradient_reaches_the_target():
    """The target has no gradients; every online parameter has one."""
    method = small_rsa()
    method(random_views(), method.scalars(0.0)).loss.backward()
    for name, parameter in method.named_parameters():
        assert (parameter.grad is None) == name.startswith("target_"), name


def test_weak_views_never_enter_the_online_network():
    """The online network's gradients do not depend on the weak views when beta is 1."""
    method = small_rsa(beta_base=1.0, beta_mode="fixed")
    views = random_views()
    gradients = []
    for weak in (views[2:], random_views()[2:]):
        network = copy.deepcopy(method)
        network([*views[:2], *weak], method.scalars(0.0)).loss.backward()
        gradients.append(network.backbone.conv1.weight.grad)
    assert torch.equal(*gradients)


def test_each_view_is_a_forward_of_its_own():
    """BatchNorm counts two batches per step in each network, and one if views are batched."""
    for batch_views, forwards in ((False, 2), (True, 1)):
        method = small_rsa(batch_views=batch_views)
        method(random_views(), method.scalars(0.0))
        assert method.backbone.bn1.num_batches_tracked == forwards
        assert method.target_backbone.bn1.num_batches_tracked == forwards


def test_target_statistics_are_its_own():
    """The target's BatchNorm runs in train mode on the weak views."""
    method = small_rsa()
    method(random_views(), method.scalars(0.0))
    online, target = method.backbone.bn1.running_mean, method.target_backbone.bn1.running_mean
    assert target.abs().sum() > 0
    assert not torch.equal(online, target)


def test_beta_modes():
    """Decay follows Eq. 6; fixed stays."""
    for mode, expected in (("decay", 0.2), ("fixed", 0.4)):
        assert small_rsa(beta_mode=mode).scalars(0.5) == {"beta": pytest.approx(expected)}
