from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn

from rsa_eval.features.networks.load import load_network
from rsa_eval.features.networks.spec import NetworkSpec
from rsa_eval.features.networks.tokens import Pooling
from rsa_eval.features.networks.torchvision_models import TorchvisionFeatures, _without_classifier
from rsa_pretrain.plumbing.errors import UserError


@torch.no_grad()
def test_features_are_the_input_of_the_last_linear_layer(tmp_path: Path) -> None:
    """Of a network with another number of classes, the classifier is dropped from the file."""
    model = torchvision.models.mobilenet_v3_small(num_classes=7).eval()
    torch.save(model.state_dict(), tmp_path / "w.pth")
    loaded = load_network(f"torchvision:mobilenet_v3_small@{tmp_path / 'w.pth'}", 32)
    images = torch.randn(2, 3, 32, 32)
    expected = model.classifier[:-1](model.avgpool(model.features(images)).flatten(1))
    assert torch.equal(loaded.backbone(images), expected)
    assert loaded.preprocessing.mean == (0.485, 0.456, 0.406)
    assert loaded.preprocessing.resize == 256


@pytest.mark.parametrize("name", ["resnet18", "densenet121", "vgg11", "shufflenet_v2_x0_5"])
def test_the_classifier_is_the_last_linear_layer(name: str) -> None:
    """The layer that is removed gives the classes."""
    with torch.device("meta"):
        model = torchvision.models.get_model(name, num_classes=11)
        (removed,) = _without_classifier(model, name)
    parent, _, own_name = removed.rpartition(".")
    assert isinstance(getattr(model.get_submodule(parent), own_name), nn.Identity)
    assert not any(getattr(module, "out_features", 0) == 11 for module in model.modules())


@pytest.fixture
def vit() -> Any:
    """A small vision transformer."""
    return torchvision.models.VisionTransformer(
        image_size=32, patch_size=8, num_layers=3, num_heads=2, hidden_dim=16, mlp_dim=32
    ).eval()


@torch.no_grad()
def test_tokens_are_those_indexed_by_hand(vit: Any) -> None:
    """Blocks are called one by one, the final norm after each."""
    images = torch.randn(2, 3, 32, 32)
    tokens = vit.conv_proj(images).flatten(2).mT
    tokens = torch.cat([vit.class_token.expand(2, -1, -1), tokens], dim=1)
    tokens, outputs = tokens + vit.encoder.pos_embedding, []
    for block in vit.encoder.layers:
        tokens = block(tokens)
        outputs.append(vit.encoder.ln(tokens))
    classes = [output[:, 0] for output in outputs[-2:]]
    means = [output[:, 1:].mean(dim=1) for output in outputs[-2:]]
    expected: dict[Any, list[Tensor]] = {
        "cls": classes,
        "mean": means,
        "cls+mean": [*classes, means[-1]],
    }
    for pooled, parts in expected.items():
        found = TorchvisionFeatures(vit, "vit", Pooling(pooled, 2))(images)
        torch.testing.assert_close(found, torch.cat(parts, dim=1))
    vit.heads = nn.Identity()
    assert torch.equal(TorchvisionFeatures(vit, "vit", Pooling())(images), vit(images))


def test_released_weights_are_downloaded_without_unpickling(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A weights name downloads them, tensors only; DenseNets' old names are understood."""
    state = torchvision.models.densenet121().state_dict()
    old = {
        name.replace("norm1", "norm.1").replace("conv2", "conv.2"): tensor
        for name, tensor in state.items()
    }
    asked: list[dict[str, Any]] = []

    def download(url: str, **options: Any) -> dict[str, Tensor]:
        asked.append(options)
        return old

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", download)
    loaded = load_network("torchvision:densenet121@IMAGENET1K_V1", 32)
    assert asked == [{"progress": False, "check_hash": True, "weights_only": True}]
    found = loaded.backbone.state_dict()["module.model.features.denseblock1.denselayer1.norm1.bias"]
    assert torch.equal(found, state["features.denseblock1.denselayer1.norm1.bias"])


@pytest.mark.parametrize("content", [b"", b"<html>proxy</html>"])
def test_a_damaged_copy_of_a_download_is_one_error(
    content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error names the folder that has it."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    name = torchvision.models.get_model_weights("mobilenet_v3_small").DEFAULT.url.rpartition("/")[2]
    path = tmp_path / "hub" / "checkpoints" / name
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    with pytest.raises(UserError, match=f"cannot load .* its copy below '{tmp_path / 'hub'}'"):
        load_network("torchvision:mobilenet_v3_small@DEFAULT", 32)


def test_what_torchvision_lacks_is_one_error(tmp_path: Path) -> None:
    """Networks, weights, classifiers to remove, and weights whose scaling no file states."""
    for name, message in (
        ("resnet19", "has no classification network 'resnet19'; the nearest is 'resnet1"),
        ("squeezenet1_0", "has no linear classifier to remove"),
    ):
        with pytest.raises(UserError, match=message):
            load_network(NetworkSpec("torchvision", name, is_random=True), 32)
    with pytest.raises(UserError, match="has no weights 'V9' of vgg11; expected one of IMAGENET1K"):
        load_network("torchvision:vgg11@V9", 32)
    (tmp_path / "w.pth").touch()
    with pytest.raises(UserError, match="does not say whether its weights expect transform_input"):
        load_network(f"torchvision:googlenet@{tmp_path / 'w.pth'}", 32)
