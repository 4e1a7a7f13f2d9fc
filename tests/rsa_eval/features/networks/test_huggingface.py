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


@pytest.mark.parametrize("kind", ["Model", "ForPreTraining"])
@torch.no_grad()
def test_a_masked_autoencoder_sees_the_whole_image(
    kind: str, tmp_path: Path, images: Tensor
) -> None:
    """Features and map are those of a plain ViT with the same weights, patches in their order.

    Left alone, ViT-MAE drops 75 % of the patches at random and shuffles the others.
    """
    vit = transformers.ViTModel(
        transformers.ViTConfig(**SMALL, layer_norm_eps=1e-12), add_pooling_layer=False
    ).eval()
    config = transformers.ViTMAEConfig(**SMALL, decoder_hidden_size=16, decoder_num_hidden_layers=1)
    assert config.mask_ratio == 0.75
    model = getattr(transformers, f"ViTMAE{kind}")(config)
    (model if kind == "Model" else model.vit).load_state_dict(vit.state_dict())
    folder = write_folder(model, tmp_path / "mae")
    hidden = vit(images, output_hidden_states=True).hidden_states[-2:]
    first, last = (vit.layernorm(state) for state in hidden)
    for tokens, blocks, expected in (
        ("default", 1, last[:, 0]),
        ("cls+mean", 1, torch.cat([last[:, 0], last[:, 1:].mean(dim=1)], dim=1)),
        ("cls", 2, torch.cat([first[:, 0], last[:, 0]], dim=1)),
    ):
        loaded = load_network(f"hf:{folder}", 32, tokens=tokens, blocks=blocks)
        torch.testing.assert_close(loaded.backbone(images), expected)
    places = loaded.backbone.last_map(images).flatten(2).mT
    torch.testing.assert_close(places, last[:, 1:])


@torch.no_grad()
def test_a_hierarchical_class_token_is_no_place(tmp_path: Path) -> None:
    """PVT's last stage has one, and DINOv3's ConvNeXt its average: both are what they pool to."""
    images = torch.randn(2, 3, 64, 64)
    pvt = transformers.PvtConfig(
        image_size=64, hidden_sizes=[8, 8, 16, 16], depths=[1] * 4, num_attention_heads=[1] * 4
    )
    convnext = transformers.DINOv3ConvNextConfig(hidden_sizes=[8, 8, 16, 16], depths=[1] * 4)
    for name, model in (
        ("pvt", transformers.PvtModel(pvt)),
        ("convnext", transformers.DINOv3ConvNextModel(convnext)),
    ):
        folder = write_folder(model.eval(), tmp_path / name)
        tokens = model(images).last_hidden_state
        assert tokens.shape == (2, 5, 16)
        for pooling, expected in (("default", tokens[:, 0]), ("mean", tokens[:, 1:].mean(dim=1))):
            loaded = load_network(f"hf:{folder}", 64, tokens=pooling)
            torch.testing.assert_close(loaded.backbone(images), expected)


@torch.no_grad()
def test_a_map_with_channels_last_is_averaged_over_places(tmp_path: Path) -> None:
    """SAM 2's trunk gives (N, h, w, D)."""
    config = transformers.Sam2HieraDetConfig(
        hidden_size=8,
        image_size=[64, 64],
        embed_dim_per_stage=[8, 16, 32, 64],
        blocks_per_stage=[1, 1, 1, 1],
        global_attention_blocks=[],
    )
    model = transformers.Sam2HieraDetModel(config).eval()
    folder = write_folder(model, tmp_path / "sam2")
    images = torch.randn(2, 3, 64, 64)
    expected = model(images).last_hidden_state
    assert expected.shape == (2, 2, 2, 64)
    backbone = load_network(f"hf:{folder}", 64).backbone
    torch.testing.assert_close(backbone(images), expected.mean(dim=(1, 2)))
    torch.testing.assert_close(backbone.last_map(images), expected.permute(0, 3, 1, 2))


NARROW = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
NARROW |= {"num_attention_heads": 2}


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (
            "CLIP",
            {
                "text_config": NARROW | {"vocab_size": 100},
                "vision_config": NARROW | {"image_size": 32, "patch_size": 8},
            },
            r"is a CLIPModel, which takes input_ids and pixel_values; expected a network of "
            r"pixel_values alone, such as the vision model",
        ),
        (
            "Bert",
            NARROW | {"vocab_size": 100},
            "is a BertModel, which takes input_ids;",
        ),
        ("SegGpt", SMALL, "takes pixel_values and prompt_pixel_values and prompt_masks"),
        ("VideoMAE", SMALL, "is a VideoMAEModel, which takes videos"),
    ],
)
def test_networks_of_more_than_images_are_refused(
    kind: str, settings: dict[str, Any], message: str, tmp_path: Path
) -> None:
    """In one line that names what they take."""
    config = getattr(transformers, f"{kind}Config")(**settings)
    folder = write_folder(getattr(transformers, f"{kind}Model")(config), tmp_path / "x")
    with pytest.raises(UserError, match=message):
        load_network(f"hf:{folder}", 32)


def test_a_decoder_is_refused(tmp_path: Path) -> None:
    """A detector's last hidden state answers its queries."""
    backbone = transformers.ResNetConfig(
        embedding_size=8,
        hidden_sizes=[8, 8, 8, 8],
        depths=[1] * 4,
        layer_type="basic",
        out_features=["stage4"],
    )
    config = transformers.DetrConfig(
        backbone_config=backbone,
        use_timm_backbone=False,
        use_pretrained_backbone=False,
        num_queries=9,
        d_model=16,
        encoder_layers=1,
        decoder_layers=1,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
    )
    folder = write_folder(transformers.DetrModel(config).eval(), tmp_path / "detr")
    with pytest.raises(UserError, match="returns the answers of a decoder, not features"):
        load_network(f"hf:{folder}", 64)


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
