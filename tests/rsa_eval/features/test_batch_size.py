import narrow
import pytest
import torch
from torch import nn

from rsa_eval.evaluators.knn.settings import KNNConfig
from rsa_eval.features.batch_size import batch_size_on
from rsa_eval.features.networks.interface import network_of
from rsa_pretrain.components.backbone import build_backbone
from rsa_pretrain.components.settings import BackboneConfig
from rsa_pretrain.plumbing.config.files import parse_tree

GPU = torch.device("cuda", 0)


def _backbone(arch: str, stem: str) -> nn.Module:
    with narrow.narrow_resnets(False), torch.device("meta"):
        return build_backbone(BackboneConfig(arch=arch, stem=stem))


def _config(side: int, batch_size: int | None = None) -> KNNConfig:
    tree = {"data": {"name": "digits", "image_size": side}, "batch_size": batch_size}
    return parse_tree(KNNConfig, tree, "test")


@pytest.mark.parametrize(
    ("arch", "stem", "side", "expected"),
    [
        ("resnet18", "cifar", 32, 2048),
        ("resnet18", "cifar", 96, 455),
        ("resnet50", "cifar", 32, 1024),
        ("resnet18", "standard", 64, 2048),
        ("resnet50", "standard", 224, 334),
        ("resnet50", "cifar", 1024, 1),
    ],
)
def test_a_gpu_takes_as_many_images_as_fit(arch: str, stem: str, side: int, expected: int) -> None:
    """Small images come by the thousand; their number falls with the area, to one."""
    assert batch_size_on(GPU, _backbone(arch, stem), _config(side)) == expected


def test_a_batch_size_that_is_set_counts_on_every_device() -> None:
    """It may be larger than the device's own."""
    backbone = _backbone("resnet50", "standard")
    for device in (GPU, torch.device("cpu")):
        assert batch_size_on(device, backbone, _config(224, 5000)) == 5000


def test_a_cpu_takes_256_images() -> None:
    """Whatever their size."""
    backbone = _backbone("resnet50", "cifar")
    assert [batch_size_on(torch.device("cpu"), backbone, _config(side)) for side in (8, 512)] == [
        256,
        256,
    ]


@pytest.mark.parametrize("stem", ["cifar", "standard"])
@pytest.mark.parametrize("arch", ["resnet18", "resnet50"])
@pytest.mark.parametrize("side", [32, 33, 50])
def test_no_map_is_larger(arch: str, stem: str, side: int) -> None:
    """The size is that of the largest output of any layer, whose ReLU works in place."""
    sizes = []
    backbone = _backbone(arch, stem).eval()
    for module in backbone.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda _, __, out: sizes.append(4 * out[0].numel()))
    backbone(torch.zeros(1, 3, side, side, device="meta"))
    assert network_of(backbone).largest_map_bytes(side) == max(sizes)
