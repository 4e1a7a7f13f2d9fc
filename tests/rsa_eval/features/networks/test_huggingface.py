import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from rsa_eval.evaluators.knn.settings import KNNConfig
from rsa_eval.features.networks.load import load_network
from rsa_eval.features.subject import load_subject
from rsa_pretrain.plumbing.errors import UserError

transformers: Any = pytest.importorskip(
    "transformers", reason="transformers is not installed (extra: networks)"
)
PREPROCESSOR = {
    "image_mean": [0.4, 0.5, 0.6],
    "image_std": [0.2, 0.25, 0.3],
    "size": {"height": 32, "width": 32},
    "resample": 3,
    "rescale_factor": 0.00392156862745098,
}
SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 8,
}


def write_folder(model: Any, folder: Path, **changes: Any) -> Path:
    """Save a network with its preprocessing."""
    transformers.utils.logging.disable_progress_bar()
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR | changes))
    return folder


@pytest.fixture
def vit(tmp_path: Path) -> tuple[Any, Path]:
    """A small ViT with a classifier, and its folder."""
    config = transformers.ViTConfig(**SMALL, intermediate_size=64)
    model = transformers.ViTForImageClassification(config).eval()
    return model, write_folder(model, tmp_path / "tiny-vit")


@pytest.fixture
def images() -> Tensor:
    """Two random images."""
    return torch.randn(2, 3, 32, 32)


@torch.no_grad()
def test_a_vit_gives_its_class_token(
    vit: tuple[Any, Path], images: Tensor, settings: Callable[..., KNNConfig]
) -> None:
    """The first token of the last hidden state, bit for bit; mean and std are the folder's."""
    model, folder = vit
    subject = load_subject(f"hf:{folder}", settings())
    expected = model.vit(images).last_hidden_state[:, 0]
    assert torch.equal(subject.backbone(images), expected)
    assert (subject.mean, subject.std) == ((0.4, 0.5, 0.6), (0.2, 0.25, 0.3))
    assert subject.model.other_network == "hf:tiny-vit"
    assert subject.model.checkpoint == f"hf:{folder}"


@pytest.mark.parametrize("kind", ["ViT", "Dinov2WithRegisters"])
@torch.no_grad()
def test_tokens_are_those_indexed_by_hand(kind: str, tmp_path: Path, images: Tensor) -> None:
    """Hidden states under the final norm; registers are no patches."""
    config = getattr(transformers, f"{kind}Config")(**SMALL)
    model = getattr(transformers, f"{kind}Model")(config).eval()
    folder = write_folder(model, tmp_path / "x")
    hidden = model(images, output_hidden_states=True).hidden_states[-2:]
    outputs = [model.layernorm(state) for state in hidden]
    num_prefix = outputs[0].shape[1] - 16
    assert num_prefix == (1 if kind == "ViT" else 5)
    classes = [output[:, 0] for output in outputs]
    means = [output[:, num_prefix:].mean(dim=1) for output in outputs]
    expected = {"cls": classes, "mean": means, "cls+mean": [*classes, means[-1]]}
    for tokens, parts in expected.items():
        loaded = load_network(f"hf:{folder}", 32, tokens=tokens, blocks=2)
        torch.testing.assert_close(loaded.backbone(images), torch.cat(parts, dim=1))
    with pytest.raises(UserError, match="has 3 blocks, found blocks=4"):
        load_network(f"hf:{folder}", 32, tokens="cls", blocks=4)


@torch.no_grad()
def test_a_cnn_gives_its_averaged_map(tmp_path: Path, images: Tensor) -> None:
    """Over all positions; it has no tokens."""
    config = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16, 16, 24], depths=[1, 1, 1, 1], layer_type="basic"
    )
    model = transformers.ResNetModel(config).eval()
    folder = write_folder(model, tmp_path / "cnn")
    loaded = load_network(f"hf:{folder}", 64)
    images = torch.randn(2, 3, 64, 64)
    assert torch.equal(loaded.backbone(images), model(images).last_hidden_state.mean(dim=(2, 3)))
    with pytest.raises(UserError, match="hf:cnn has no tokens, so tokens=mean blocks=1"):
        load_network(f"hf:{folder}", 64, tokens="mean")


def test_tokens_that_are_no_prefix_are_refused(tmp_path: Path) -> None:
    """A detector's follow the patches, so the patches could not be averaged."""
    config = transformers.YolosConfig(**SMALL | {"image_size": [32, 32]}, intermediate_size=64)
    folder = write_folder(transformers.YolosModel(config).eval(), tmp_path / "yolos")
    with pytest.raises(UserError, match="returns 101 tokens beside the patches', so tokens=mean"):
        load_network(f"hf:{folder}", 32, tokens="mean")


def test_settings_are_part_of_the_identity(vit: tuple[Any, Path]) -> None:
    """A folder without a pooler is the same network each time; with another config.json it is not.

    ``AutoModel`` draws a missing pooler at random.
    """
    _, folder = vit
    first = load_network(f"hf:{folder}", 32).sha256
    assert load_network(f"hf:{folder}", 32).sha256 == first
    path = folder / "config.json"
    tree = json.loads(path.read_text())
    path.write_text(json.dumps(tree | {"layer_norm_eps": 0.5}))
    assert load_network(f"hf:{folder}", 32).sha256 != first


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_mean": None}, "mean must be three numbers, found None"),
        ({"image_std": [0.1, 0.0, 0.1]}, "std must be positive"),
        ({"rescale_factor": 1.0}, "scales pixels by 1.0; expected 1/255"),
        ({"rescale_factor": None}, "scales pixels by None; expected 1/255"),
        ({"rescale_factor": "1/255"}, "scales pixels by '1/255'; expected 1/255"),
        ({"rescale_factor": float("nan")}, "scales pixels by nan; expected 1/255"),
        ({"do_rescale": False}, "scales pixels by 1; expected 1/255"),
        ({"do_rescale": None}, "scales pixels by 1; expected 1/255"),
    ],
)
def test_other_preprocessing_is_refused(
    vit: tuple[Any, Path], changes: dict[str, Any], message: str
) -> None:
    """It would make features of other pixels than the weights expect."""
    _, folder = vit
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR | changes))
    with pytest.raises(UserError, match=message):
        load_network(f"hf:{folder}", 32)


def test_only_a_known_interpolation_is_stated(vit: tuple[Any, Path]) -> None:
    """Pillow's number of it; anything else leaves it open."""
    _, folder = vit
    for resample, expected in ((3, "bicubic"), (2, "bilinear"), (0, None), ([3], None)):
        tree = PREPROCESSOR | {"resample": resample}
        (folder / "preprocessor_config.json").write_text(json.dumps(tree))
        assert load_network(f"hf:{folder}", 32).preprocessing.interpolation == expected


def test_incomplete_folders_are_refused(vit: tuple[Any, Path]) -> None:
    """Missing tensors would be random; pickles are not read; the size is named."""
    _, folder = vit
    with pytest.raises(UserError, match=r"of 32 pixels, found 48; set data\.image_size=32"):
        load_network(f"hf:{folder}", 48)
    weights = folder / "model.safetensors"
    tensors = load_file(weights)
    kept = {name: tensor for name, tensor in tensors.items() if name != "vit.layernorm.bias"}
    save_file(kept, weights, {"format": "pt"})
    with pytest.raises(UserError, match=r"as ViTModel: 1 missing: layernorm\.bias"):
        load_network(f"hf:{folder}", 32)
    torch.save(tensors, folder / "pytorch_model.bin")
    weights.unlink()
    with pytest.raises(UserError, match="transformers cannot load"):
        load_network(f"hf:{folder}", 32)
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(UserError, match="states the mean and std the weights expect"):
        load_network(f"hf:{folder}", 32)


def test_code_in_a_folder_is_not_run(vit: tuple[Any, Path], tmp_path: Path) -> None:
    """Although config.json refers to it."""
    _, folder = vit
    path = folder / "config.json"
    tree = json.loads(path.read_text())
    tree |= {"model_type": "own", "auto_map": {"AutoConfig": "own.C", "AutoModel": "own.M"}}
    path.write_text(json.dumps(tree))
    (folder / "own.py").write_text(f"open({str(tmp_path / 'hit')!r}, 'w')")
    with pytest.raises(UserError, match="transformers cannot load"):
        load_network(f"hf:{folder}", 32)
    assert not (tmp_path / "hit").exists()
