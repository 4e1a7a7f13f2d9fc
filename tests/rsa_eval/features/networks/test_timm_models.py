import builtins
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from rsa_eval.evaluators.knn.settings import KNNConfig
from rsa_eval.features.networks.load import load_network
from rsa_eval.features.networks.spec import NetworkSpec
from rsa_eval.features.networks.timm_models import TimmFeatures, _preprocessing
from rsa_eval.features.networks.tokens import Pooling
from rsa_eval.features.subject import load_subject
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.weights.checkpoint import file_sha256

timm: Any = pytest.importorskip("timm", reason="timm is not installed (extra: networks)")


@pytest.fixture
def vit() -> Any:
    """A small vision transformer with a classifier of seven classes."""
    return timm.create_model("test_vit", num_classes=7).eval()


@pytest.fixture
def file(vit: Any, tmp_path: Path) -> Path:
    """Its weights."""
    save_file(vit.state_dict(), tmp_path / "vit.safetensors")
    return tmp_path / "vit.safetensors"


@pytest.fixture
def images() -> Tensor:
    """Three random images."""
    return torch.randn(3, 3, 32, 32)


@torch.no_grad()
def test_default_features_are_those_before_the_classifier(
    vit: Any, file: Path, images: Tensor
) -> None:
    """Bit for bit what timm gives its classifier."""
    loaded = load_network(f"timm:test_vit@{file}", 32)
    expected = vit.forward_head(vit.forward_features(images), pre_logits=True)
    assert torch.equal(loaded.backbone(images), expected)
    assert loaded.sha256 == file_sha256(file)
    assert loaded.preprocessing.mean == (0.5, 0.5, 0.5)
    assert not any(module.training for module in loaded.backbone.modules())


def test_the_short_side_is_resized_as_by_timm() -> None:
    """Of each size and crop of its networks: 0.9 of 224 pixels is 248, where 248.9 is nearer 249.

    timm stretches or pads the images of a few networks, which are left out.
    """
    known = [timm.models.get_pretrained_cfg(name).to_dict() for name in timm.list_models()]
    centred = [config for config in known if config["crop_mode"] == "center"]
    each = {(config["input_size"], config["crop_pct"]): config for config in centred}
    assert {((3, 224, 224), 0.9), ((3, 224, 224), 0.95), ((3, 224, 224), 0.875)} < each.keys()
    for config in each.values():
        theirs = timm.data.create_transform(**timm.data.resolve_data_config({}, config))
        assert _preprocessing(config).resize == theirs.transforms[0].size
    assert _preprocessing(each[(3, 224, 224), 0.9]).resize == 248
    assert _preprocessing(each[(3, 224, 224), 0.95]).resize == 235


def block_outputs(vit: Any, images: Tensor) -> list[Tensor]:
    """Tokens after each block under the final norm, with timm's parts called one by one."""
    tokens = vit.norm_pre(vit._pos_embed(vit.patch_embed(images)))
    found = []
    for block in vit.blocks:
        tokens = block(tokens)
        found.append(vit.norm(tokens))
    return found


@pytest.mark.parametrize("blocks", [1, 3])
@torch.no_grad()
def test_tokens_are_those_indexed_by_hand(
    vit: Any, file: Path, images: Tensor, blocks: int
) -> None:
    """The class token is the first; DINOv2's input has the mean of the last block's patches."""
    outputs = block_outputs(vit, images)[-blocks:]
    classes = [tokens[:, 0] for tokens in outputs]
    means = [tokens[:, 1:].mean(dim=1) for tokens in outputs]
    expected = {"cls": classes, "mean": means, "cls+mean": [*classes, means[-1]]}
    for tokens, parts in expected.items():
        loaded = load_network(f"timm:test_vit@{file}", 32, tokens=tokens, blocks=blocks)
        torch.testing.assert_close(loaded.backbone(images), torch.cat(parts, dim=1))


@torch.no_grad()
def test_registers_are_no_patches(images: Tensor) -> None:
    """Of a network with registers, only the tokens behind all prefix tokens are averaged."""
    vit = timm.create_model(
        "vit_small_patch16_dinov3", num_classes=0, depth=2, embed_dim=48, num_heads=3
    ).eval()
    assert vit.num_prefix_tokens == 5
    found = TimmFeatures(vit, "vit", Pooling("cls+mean", 1))(images)
    tokens = vit.forward_features(images)
    expected = torch.cat([tokens[:, 0], tokens[:, 5:].mean(dim=1)], dim=1)
    torch.testing.assert_close(found, expected)


@torch.no_grad()
def test_a_network_without_class_token_has_patches_alone(images: Tensor) -> None:
    """Their mean is taken, and the class token refused; the first token is a register."""
    vit = timm.create_model("test_vit2", num_classes=0, img_size=32, fc_norm=False).eval()
    expected = vit.forward_features(images)[:, 1:].mean(dim=1)
    torch.testing.assert_close(TimmFeatures(vit, "vit", Pooling("mean"))(images), expected)
    with pytest.raises(UserError, match="vit has no class token, so tokens=cls"):
        TimmFeatures(vit, "vit", Pooling("cls"))(images)


def test_a_checkpoint_of_a_training_is_unwrapped(vit: Any, file: Path, tmp_path: Path) -> None:
    """``torch.save`` of a state below state_dict, with DataParallel's names and half precision."""
    state = {f"module.{name}": tensor.half() for name, tensor in vit.state_dict().items()}
    torch.save({"epoch": 3, "state_dict": state}, tmp_path / "vit.pth")
    rounded = load_network(f"timm:test_vit@{tmp_path / 'vit.pth'}", 32).backbone
    exact = load_network(f"timm:test_vit@{file}", 32).backbone
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(rounded(images), exact(images), rtol=0.02, atol=0.02)
    torch.save({"model": vit.state_dict(), "ema": vit.state_dict()}, tmp_path / "two.pth")
    with pytest.raises(UserError, match="contains timm:test_vit 2 times, under 'model', 'ema'"):
        load_network(f"timm:test_vit@{tmp_path / 'two.pth'}", 32)


class Attack:
    """Unpickled, it would write a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return builtins.exec, (f"open({str(self.path)!r}, 'w')",)


def test_weights_must_fit_one_to_one(vit: Any, tmp_path: Path) -> None:
    """Missing, further and misshapen tensors are listed; a file that runs code is refused."""
    state = dict(vit.state_dict())
    del state["norm.bias"]
    state["norm.extra"] = torch.zeros(1)
    state["pos_embed"] = state["pos_embed"][:, :5].contiguous()
    save_file(state, tmp_path / "vit.safetensors")
    with pytest.raises(
        UserError, match=r"1 missing: norm\.bias; 1 unexpected: norm\.extra; 1 misshapen: pos_embed"
    ):
        load_network(f"timm:test_vit@{tmp_path / 'vit.safetensors'}", 32)
    torch.save({"state_dict": vit.state_dict(), "x": Attack(tmp_path / "hit")}, tmp_path / "x.pth")
    with pytest.raises(UserError, match="was made to run code"):
        load_network(f"timm:test_vit@{tmp_path / 'x.pth'}", 32)
    assert not (tmp_path / "hit").exists()


def test_random_weights_follow_the_seed() -> None:
    """The same seed gives the same weights, and torch's generator does not move."""
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    bare = NetworkSpec("timm", "test_vit", is_random=True)
    hashes = [load_network(bare, 32, seed=seed).sha256 for seed in (0, 0, 1)]
    assert hashes[0] == hashes[1] != hashes[2]
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_network_of_one_size_names_it(settings: Callable[..., KNNConfig]) -> None:
    """The error says which size to set."""
    bare = NetworkSpec("timm", "vit_tiny_patch16_224", is_random=True)
    with pytest.raises(UserError, match=r"for images of 224 pixels, found 32; set data.image_size"):
        load_subject(bare, settings())


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        (
            "test_resnet",
            {"tokens": "cls"},
            "gives no tokens .*, so tokens=cls blocks=1",
        ),
        ("test_vit", {"tokens": "cls", "blocks": 7}, "has 6 blocks, found blocks=7"),
        ("test_vit", {"blocks": 2}, "blocks needs tokens=cls"),
        ("test_vit4", {"tokens": "mean"}, "has its final norm behind the pooling, not on tokens"),
        ("cait_xxs24_224", {"tokens": "cls"}, "gives no tokens of its blocks"),
        ("hiera_tiny_224", {"tokens": "mean"}, "gives no tokens of its blocks"),
        ("test_vitt", {}, "has no network 'test_vitt'; the nearest is 'test_vit'"),
        ("test_vit.no_such_tag", {}, "timm cannot create 'timm:test_vit.no_such_tag"),
    ],
)
def test_what_a_network_lacks_is_one_error(
    name: str, arguments: dict[str, Any], message: str
) -> None:
    """Tokens, blocks, the class token, and the network itself."""
    with pytest.raises(UserError, match=message):
        load_network(NetworkSpec("timm", name, is_random=True), 160, **arguments)


def test_a_download_is_explicit(monkeypatch: pytest.MonkeyPatch) -> None:
    """``pretrained`` reaches timm as such, and its failure is one error."""
    asked: list[bool] = []

    def create(name: str, *, pretrained: bool) -> Any:
        asked.append(pretrained)
        raise ConnectionError("no network here")

    monkeypatch.setattr(timm, "create_model", create)
    message = r"cannot create 'timm:test_vit@pretrained' .*no network.* give timm:test_vit@FILE$"
    with pytest.raises(UserError, match=message):
        load_network("timm:test_vit@pretrained", 32)
    assert asked == [True]


@torch.no_grad()
def test_a_download_is_loaded_strictly(monkeypatch: pytest.MonkeyPatch) -> None:
    """The released weights give the features of a file of them; no tensor may be missing."""
    released = timm.create_model("test_vit").eval()
    state = released.state_dict()
    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", lambda *_, **__: {**state})
    loaded = load_network("timm:test_vit@pretrained", 160)
    images = torch.randn(3, 3, 160, 160)
    expected = released.forward_head(released.forward_features(images), pre_logits=True)
    assert torch.equal(loaded.backbone(images), expected)
    assert not any("head" in name for name in loaded.backbone.state_dict())
    del state["blocks.0.norm1.bias"]
    with pytest.raises(UserError, match=r"Missing key.*blocks\.0\.norm1\.bias"):
        load_network("timm:test_vit@pretrained", 160)


@pytest.mark.parametrize(
    ("package", "spec"), [("timm", "timm:test_vit@{}"), ("transformers", "hf:{}")]
)
def test_a_missing_library_is_named(
    package: str, spec: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the command that installs it."""
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(
        UserError, match=rf"needs the package {package} .* pip install .rsa-toolkit\[networks\]"
    ):
        load_network(spec.format(tmp_path), 32)


def test_settings_that_contradict_are_refused(
    file: Path, settings: Callable[..., KNNConfig]
) -> None:
    """A ResNet's stages and network, and other pixel statistics than the weights'."""
    spec = f"timm:test_vit@{file}"
    data = settings().data.model_dump() | {"mean": (0.1, 0.1, 0.1), "std": (1.0, 1.0, 1.0)}
    for changes, message in (
        ({"layers": ["layer3"]}, "layers are a ResNet's stages"),
        ({"backbone": {"arch": "resnet18", "stem": "cifar"}}, "leave backbone out"),
        ({"data": data}, r"data.mean is set to \(0.1, 0.1, 0.1\), but the weights in 'timm:"),
    ):
        with pytest.raises(UserError, match=message):
            load_subject(spec, settings(**changes))


def test_tokens_of_a_resnet_are_refused(
    finished_run: Path, settings: Callable[..., KNNConfig]
) -> None:
    """With and without a checkpoint."""
    backbone = {"arch": "resnet18", "stem": "cifar"}
    for checkpoint, changes in ((finished_run, {}), (None, {"backbone": backbone})):
        with pytest.raises(UserError, match="tokens=cls needs a network with tokens, and a ResNet"):
            load_subject(checkpoint, settings(tokens="cls", **changes))
