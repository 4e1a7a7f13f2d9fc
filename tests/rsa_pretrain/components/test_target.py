import pytest
import torch
from torch import nn

from rsa_pretrain.components.target import TargetUpdate, make_target


def small_network():
    """Two layers, one with buffers."""
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))


def test_update_is_the_weighted_mean():
    """Every parameter becomes tau target + (1 - tau) online."""
    online, target = small_network(), small_network()
    before = [parameter.clone() for parameter in target.parameters()]
    TargetUpdate((target, online))(0.9)
    for old, new, source in zip(before, target.parameters(), online.parameters(), strict=True):
        torch.testing.assert_close(new, 0.9 * old + 0.1 * source)


@pytest.mark.parametrize(("ema_momentum", "follows"), [(0.0, True), (1.0, False)])
def test_update_at_its_ends(ema_momentum, follows):
    """Momentum 0 copies the online network, 1 leaves the target bitwise unmoved."""
    online, target = small_network(), small_network()
    before = target[0].weight.clone()
    TargetUpdate((target, online))(ema_momentum)
    assert torch.equal(target[0].weight, online[0].weight if follows else before)


def test_batch_norm_statistics_stay_the_targets_own():
    """Buffers are not averaged."""
    online, target = small_network(), small_network()
    online[1].running_mean.fill_(5.0)
    TargetUpdate((target, online))(0.5)
    assert torch.equal(target[1].running_mean, torch.zeros(4))


def test_target_starts_as_a_frozen_copy():
    """Equal values, separate storage, no gradients."""
    online = small_network()
    target = make_target(online)
    assert torch.equal(target[0].weight, online[0].weight)
    assert target[0].weight.data_ptr() != online[0].weight.data_ptr()
    assert not any(parameter.requires_grad for parameter in target.parameters())
    assert all(parameter.requires_grad for parameter in online.parameters())
