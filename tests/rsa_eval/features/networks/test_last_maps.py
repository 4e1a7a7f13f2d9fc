"""Last maps of other libraries' networks: pooled, they are the features; some have none."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn

from rsa_eval.features.frozen import frozen
from rsa_eval.features.networks.foreign import ForeignNetwork, OpenedNetwork
from rsa_eval.features.networks.load import load_network
from rsa_eval.features.networks.preprocessing import Preprocessing
from rsa_eval.features.networks.spec import NetworkSpec, checkpoint_of
from rsa_eval.features.networks.tokens import Pooling, tokens_as_map
from rsa_eval.features.networks.torchvision_models import TorchvisionFeatures, _without_classifier
from rsa_pretrain.plumbing.errors import UserError

# Their features are the average of their last map.
AVERAGED = ["resnet18", "densenet121", "shufflenet_v2_x0_5", "regnet_x_400mf", "mnasnet0_5"]


@pytest.fixture
def images() -> Tensor:
    """Two random images."""
    return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
@pytest.mark.parametrize("name", AVERAGED)
def test_the_average_of_torchvisions_map_is_the_feature(name: str, images: Tensor) -> None:
    """For five families, each with another module that gives the map."""
    torch.manual_seed(0)
    model = torchvision.models.get_model(name).eval()
    _without_classifier(model, name)
    network = TorchvisionFeatures(model, name, Pooling()).eval()
    found = network.last_map(images)
    assert found.shape[2:] == (2, 2)
    torch.testing.assert_close(found.mean(dim=(2, 3)), network(images))


@torch.no_grad()
def test_a_swin_map_has_its_channels_second(images: Tensor) -> None:
    """Inside, torchvision keeps them last."""
    torch.manual_seed(0)
    model = torchvision.models.swin_t().eval()
    _without_classifier(model, "swin_t")
    network = TorchvisionFeatures(model, "swin_t", Pooling()).eval()
    found = network.last_map(images)
    assert found.shape == (2, 768, 2, 2)
    torch.testing.assert_close(found.mean(dim=(2, 3)), network(images))


@torch.no_grad()
def test_tokens_of_torchvisions_transformer_make_a_map(images: Tensor) -> None:
    """Row by row, without the class token; their mean is that of tokens=mean."""
    model = torchvision.models.VisionTransformer(
        image_size=64, patch_size=16, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=32
    ).eval()
    _without_classifier(model, "vit")
    network = TorchvisionFeatures(model, "vit", Pooling("mean")).eval()
    found = network.last_map(images)
    assert found.shape == (2, 16, 4, 4)
    torch.testing.assert_close(found.mean(dim=(2, 3)), network(images))


@torch.no_grad()
def test_a_map_with_its_channels_last_is_refused(images: Tensor) -> None:
    """Its width would be taken for a side."""
    module = nn.Identity()
    module.last_map = lambda given: given.movedim(1, 3)  # type: ignore[assignment]
    opened = OpenedNetwork(module, Preprocessing((0.5,) * 3, (0.5,) * 3), None)  # type: ignore[arg-type]
    network = ForeignNetwork(opened, "own", "").eval()
    with pytest.raises(UserError, match=r"own gave \(2, 64, 64, 3\) as the last map of square"):
        network.last_map(images)


@torch.no_grad()
def test_a_network_without_a_known_map_is_refused(images: Tensor) -> None:
    """MaxVit's blocks are a list, which gives nothing itself."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64 * 64, 5))
    network = TorchvisionFeatures(model, "torchvision:own", Pooling())
    with pytest.raises(UserError, match="torchvision:own has no module that is known to give"):
        network.last_map(images)


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "size", "shape"),
    [("test_vit", 160, (64, 10, 10)), ("resnet10t", 64, (512, 2, 2))],
)
def test_timms_map_is_its_last(name: str, size: int, shape: tuple[int, ...]) -> None:
    """Of a vision transformer and of a ResNet, whose average is its feature."""
    pytest.importorskip("timm", reason="timm is not installed (extra: networks)")
    spec = checkpoint_of(f"timm:{name}")
    assert isinstance(spec, NetworkSpec)
    backbone = load_network(spec.randomised(), size).backbone
    images = torch.randn(2, 3, size, size)
    with frozen(backbone):
        found = backbone.last_map(images)
        assert found.shape[1:] == shape
        if name == "resnet10t":
            torch.testing.assert_close(found.mean(dim=(2, 3)), backbone(images))


@torch.no_grad()
def test_the_map_of_a_folder_of_transformers(tmp_path: Path) -> None:
    """Tokens without the class token; the mean of them is that of tokens=mean."""
    transformers: Any = pytest.importorskip(
        "transformers", reason="transformers is not installed (extra: networks)"
    )
    from rsa_eval.features.networks.huggingface import HuggingFaceFeatures

    small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    sizes = {"image_size": 32, "patch_size": 8, "intermediate_size": 64}
    model = transformers.ViTModel(transformers.ViTConfig(**small, **sizes)).eval()
    network = HuggingFaceFeatures(model, "hf:vit", Pooling("mean"))
    images = torch.randn(2, 3, 32, 32)
    found = network.last_map(images)
    assert found.shape == (2, 32, 4, 4)
    torch.testing.assert_close(found.mean(dim=(2, 3)), network(images))
    config = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1])
    convolutional = HuggingFaceFeatures(
        transformers.ResNetModel(config).eval(), "hf:resnet", Pooling()
    )
    found = convolutional.last_map(images)
    torch.testing.assert_close(found.mean(dim=(2, 3)), convolutional(images))


FUNCTIONS = """
class Maps(nn.Module):
    def forward(self, images):
        return torch.nn.functional.avg_pool2d(images, 4)


class Tokens(nn.Module):
    def forward(self, images):
        patches = torch.nn.functional.avg_pool2d(images, 4).flatten(2).mT
        return torch.cat([images.mean(dim=(2, 3))[:, None], patches], dim=1)


def maps():
    return Maps(), INPUT


def tokens():
    return Tokens(), Preprocessing(mean=INPUT.mean, std=INPUT.std, num_prefix_tokens=1)
"""


@torch.no_grad()
def test_functions_give_maps_or_tokens(write_module: Callable[[str], Path]) -> None:
    """A user's map is taken as it is, its tokens as a map; features (N, D) are refused."""
    write_module(FUNCTIONS)
    images = torch.randn(2, 3, 16, 16)
    expected = torch.nn.functional.avg_pool2d(images, 4)
    for name in ("maps", "tokens"):
        backbone = load_network(f"python:mine:{name}", 16, tokens="mean").backbone
        with frozen(backbone):
            assert torch.equal(backbone.last_map(images), expected)
    backbone = load_network("python:mine:make", 16).backbone
    with frozen(backbone), pytest.raises(UserError, match=r"returns features \(N, D\), no map"):
        backbone.last_map(images)


def test_tokens_that_fill_no_square_are_refused() -> None:
    """Nothing would say where they belong."""
    with pytest.raises(UserError, match="a network gives 12 tokens of patches, which are no squ"):
        tokens_as_map(torch.zeros(1, 12, 3), "a network")
