import copy

import pytest
import torch
from torch import nn

from rsa_pretrain.components.backbone import build_backbone
from rsa_pretrain.components.batch_counts import count_batches_together
from rsa_pretrain.components.heads import build_mlp, build_simsiam_projector
from rsa_pretrain.components.settings import BackboneConfig

NETWORKS = {
    "resnet18": lambda: build_backbone(BackboneConfig(arch="resnet18", stem="cifar")),
    "mlp": lambda: build_mlp(12, 8, 4),
    "norm without affine": lambda: build_simsiam_projector(12, 8, 3),
}
INPUTS = {"resnet18": (4, 3, 16, 16), "mlp": (4, 12), "norm without affine": (4, 12)}


@pytest.mark.usefixtures("narrow_resnets")
@pytest.mark.parametrize("name", NETWORKS)
def test_state_and_results_are_those_of_a_plain_network(name):
    """Outputs, gradients and buffers are bitwise equal in train mode, and in eval mode after."""
    plain = NETWORKS[name]().train()
    together = copy.deepcopy(plain)
    count_batches_together(together)
    for _ in range(3):
        inputs = torch.randn(INPUTS[name])
        expected, found = plain(inputs), together(inputs)
        assert torch.equal(found, expected)
        expected.square().sum().backward()
        found.square().sum().backward()
    plain.eval()
    together.eval()
    assert torch.equal(together(inputs), plain(inputs))
    states = together.state_dict(), plain.state_dict()
    assert states[0].keys() == states[1].keys()
    for key, tensor in states[0].items():
        assert torch.equal(tensor, states[1][key]), key
    counts = [tensor for key, tensor in states[0].items() if key.endswith("num_batches_tracked")]
    assert {int(count) for count in counts} == {3}
    for ours, theirs in zip(together.parameters(), plain.parameters(), strict=True):
        assert torch.equal(ours.grad, theirs.grad)


def test_a_copy_counts_its_own_batches():
    """A target is a deep copy of a network."""
    online = build_mlp(12, 8, 4).train()
    target = copy.deepcopy(online)
    for network in (online, target):
        count_batches_together(network)
    online(torch.randn(4, 12))
    assert online[1].num_batches_tracked == 1
    assert target[1].num_batches_tracked == 0


def test_one_operation_counts_all_layers():
    """However many layers there are."""
    network = nn.Sequential(nn.BatchNorm1d(4), nn.BatchNorm1d(4)).train()
    with torch.profiler.profile() as profiler:
        network(torch.randn(3, 4))
    before = sum(event.count for event in profiler.key_averages() if event.key == "aten::add_")
    count_batches_together(network)
    with torch.profiler.profile() as profiler:
        network(torch.randn(3, 4))
    after = {event.key: event.count for event in profiler.key_averages()}
    assert before == 2
    assert after["aten::_foreach_add_"] == 1
