from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from rsa_eval.evaluators import EVALUATORS, Workspace
from rsa_eval.evaluators.knn.evaluator import evaluate_knn
from rsa_eval.evaluators.knn.settings import KNNConfig
from rsa_eval.evaluators.linear.evaluator import evaluate_linear
from rsa_eval.evaluators.linear.settings import LinearConfig
from rsa_eval.features.extract import extract_features
from rsa_eval.features.forward import feature_width, forward_frozen
from rsa_eval.features.frozen import frozen
from rsa_eval.features.subject import Subject, load_subject
from rsa_eval.features.transforms import evaluation_transform
from rsa_pretrain.data.open_images import open_images
from rsa_pretrain.data.settings import DataConfig, Interpolation
from rsa_pretrain.plumbing.config.files import parse_tree, to_tree
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.views.one_image import weak_augmentation
from rsa_pretrain.views.settings import WeakConfig


def _state_bytes(backbone: nn.Module) -> dict[str, bytes]:
    return {
        name: tensor.contiguous().numpy().tobytes()
        for name, tensor in backbone.state_dict().items()
    }


def test_equal_to_a_plain_loop(subject: Subject, knn_config: KNNConfig) -> None:
    """Each of the 30 images has its own features in its own row, in batches of 16 and 14."""
    images = open_images(knn_config.data, "test")
    transform = evaluation_transform(knn_config.data, subject.mean, subject.std)
    found = extract_features(subject.backbone, images, transform, knn_config, "test")
    with torch.no_grad():
        rows = [subject.backbone(transform(images[index])[None]) for index in range(len(images))]
    # Convolutions of one image and of a batch round differently.
    torch.testing.assert_close(found.features, torch.cat(rows), atol=1e-4, rtol=1e-4)
    assert found.labels.tolist() == images.labels
    assert found.features.shape == (30, 32)


def test_train_mode_is_refused(subject: Subject, knn_config: KNNConfig) -> None:
    """BatchNorm in train mode would normalise by, and learn, the evaluated batch."""
    subject.backbone.get_submodule("layer1").train()
    with pytest.raises(ValueError, match="eval mode"):
        forward_frozen(subject.backbone, torch.zeros(2, 3, 32, 32), knn_config)


@pytest.mark.parametrize(("precision", "inside"), [("fp32", False), ("bf16", True)])
def test_fp32_is_not_tf32(
    subject: Subject, knn_config: KNNConfig, precision: str, inside: bool
) -> None:
    """At fp32 convolutions may not use TF32 in the forward pass; afterwards all is as before."""
    allowed: list[bool] = []
    subject.backbone.get_submodule("conv1").register_forward_hook(
        lambda *_: allowed.append(torch.backends.cudnn.allow_tf32)
    )
    assert torch.backends.cudnn.allow_tf32
    config = knn_config.model_copy(update={"precision": precision})
    forward_frozen(subject.backbone, torch.zeros(2, 3, 32, 32), config)
    assert allowed == [inside]
    assert torch.backends.cudnn.allow_tf32


@pytest.mark.parametrize("mode", ["knn", "online", "cached"])
def test_evaluations_leave_the_backbone_unmoved(
    subject: Subject, knn_config: KNNConfig, workspace: Workspace, mode: str
) -> None:
    """Every parameter and BatchNorm buffer has the same bytes afterwards."""
    before = _state_bytes(subject.backbone)
    if mode == "knn":
        evaluate_knn(subject, knn_config, workspace)
    else:
        probe = {"mode": mode, "epochs": 2, "milestones": [1], "batch_size": 25}
        tree = {"data": to_tree(knn_config.data), "device": "cpu", "probe": probe}
        evaluate_linear(subject, parse_tree(LinearConfig, tree, "test"), workspace)
    assert _state_bytes(subject.backbone) == before


def test_a_moved_buffer_is_noticed(subject: Subject) -> None:
    """A forward pass in train mode moves BatchNorm's buffers, and frozen() says so."""
    with pytest.raises(RuntimeError, match=r"changed: bn1\.running_mean"), frozen(subject.backbone):
        subject.backbone.train()(torch.randn(4, 3, 32, 32))


def test_a_sign_of_zero_is_noticed(subject: Subject) -> None:
    """Bits are compared, not values: -0.0 is not 0.0."""
    bias = subject.backbone.get_parameter("bn1.bias")
    with torch.no_grad():
        bias[0] = 0.0
    with pytest.raises(RuntimeError, match=r"changed: bn1\.bias"), frozen(subject.backbone):
        bias[0] = -0.0


def test_frozen_gives_modes_back(subject: Subject) -> None:
    """Inside, nothing trains; afterwards each module and parameter is as it was."""
    backbone = subject.backbone.train()
    backbone.get_submodule("bn1").eval()
    with frozen(backbone):
        assert not any(module.training for module in backbone.modules())
        assert not any(parameter.requires_grad for parameter in backbone.parameters())
    assert not backbone.get_submodule("bn1").training
    assert backbone.get_submodule("layer1").training
    assert all(parameter.requires_grad for parameter in backbone.parameters())


def test_features_that_are_not_finite_are_refused(subject: Subject, knn_config: KNNConfig) -> None:
    """Weights so large that features overflow give an error, not an accuracy."""
    with torch.no_grad():
        subject.backbone.get_parameter("bn1.weight").fill_(3e38)
    with pytest.raises(
        UserError,
        match=r"30 of 30 digits images have features that are not finite .*; set precision and "
        "feature_dtype to fp32; if they are, the weights are damaged$",
    ):
        extract_features(
            subject.backbone,
            open_images(knn_config.data, "test"),
            evaluation_transform(knn_config.data, subject.mean, subject.std),
            knn_config,
            "test",
        )


def test_layer4_is_what_the_network_returns(subject: Subject, knn_config: KNNConfig) -> None:
    """The default features equal the backbone's own output bit for bit."""
    images = torch.randn(5, 3, 32, 32).to(memory_format=torch.channels_last)
    with torch.no_grad():
        expected = subject.backbone(images)
    assert torch.equal(forward_frozen(subject.backbone, images, knn_config), expected)


def test_layers_are_averaged_and_concatenated(subject: Subject, knn_config: KNNConfig) -> None:
    """Each stage's output is averaged over its positions; the order is that of the config."""
    outputs = {}
    for name in ("layer1", "layer3"):
        subject.backbone.get_submodule(name).register_forward_hook(
            lambda module, inputs, output, name=name: outputs.update({name: output.mean((2, 3))})
        )
    images = torch.randn(5, 3, 32, 32).to(memory_format=torch.channels_last)
    with torch.no_grad():
        subject.backbone(images)
    config = knn_config.model_copy(update={"layers": ("layer3", "layer1")})
    found = forward_frozen(subject.backbone, images, config)
    torch.testing.assert_close(found, torch.cat([outputs["layer3"], outputs["layer1"]], dim=1))
    assert feature_width(subject.backbone, config) == found.shape[1] == 16 + 4


def test_fp16_features_are_rounded_float32(subject: Subject, knn_config: KNNConfig) -> None:
    """They hold what a file in fp16 would give back, so a cache changes no result."""
    images = torch.randn(5, 3, 32, 32)
    full = forward_frozen(subject.backbone, images, knn_config)
    config = knn_config.model_copy(update={"feature_dtype": "fp16"})
    rounded = forward_frozen(subject.backbone, images, config)
    assert torch.equal(rounded, full.half().float())
    assert not torch.equal(rounded, full)


def test_transform_resizes_to_the_square_or_crops_the_centre() -> None:
    """A wide image keeps its edges without eval_resize and loses them with it."""
    image = Image.new("RGB", (300, 100), "black")
    image.paste("white", (100, 0, 200, 100))
    plain = {"name": "digits", "image_size": 50}
    square = evaluation_transform(
        parse_tree(DataConfig, plain, "test"), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    )(image)
    centre = evaluation_transform(
        parse_tree(DataConfig, plain | {"eval_resize": 60}, "test"),
        (0.5, 0.5, 0.5),
        (0.5, 0.5, 0.5),
    )(image)
    assert square.shape == centre.shape == (3, 50, 50)
    assert square.mean().item() == pytest.approx(1 / 3, abs=0.02)
    assert centre.min().item() == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize(
    ("interpolation", "filter_"),
    [("bilinear", Image.Resampling.BILINEAR), ("bicubic", Image.Resampling.BICUBIC)],
)
@pytest.mark.parametrize("eval_resize", [None, 50])
def test_the_interpolation_is_the_one_asked_for(
    interpolation: str, filter_: Image.Resampling, eval_resize: int | None
) -> None:
    """The pixels are those of Pillow's filter, level for level, with and without a centre crop."""
    pixels = np.random.default_rng(0).integers(0, 256, (100, 100, 3), np.uint8)
    image = Image.fromarray(pixels)
    data = {"name": "digits", "image_size": 40, "eval_interpolation": interpolation}
    config = parse_tree(DataConfig, data | {"eval_resize": eval_resize}, "test")
    found = evaluation_transform(config, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))(image)
    expected = np.asarray(image.resize((eval_resize or 40,) * 2, filter_))
    margin = (len(expected) - 40) // 2
    expected = expected[margin : margin + 40, margin : margin + 40]
    levels = (found * 255).round().to(torch.uint8).permute(1, 2, 0)
    assert np.array_equal(levels.numpy(), expected)


@pytest.mark.parametrize(
    ("words", "filter_"),
    [
        ([], Image.Resampling.BILINEAR),
        (["bilinear"], Image.Resampling.BILINEAR),
        (["bicubic"], Image.Resampling.BICUBIC),
    ],
)
def test_training_crops_take_the_interpolation(
    words: list[Interpolation], filter_: Image.Resampling
) -> None:
    """A crop of the whole image is Pillow's resize; pretraining's, told nothing, is bilinear."""
    pixels = np.random.default_rng(1).integers(0, 256, (90, 90, 3), np.uint8)
    image = Image.fromarray(pixels)
    whole = WeakConfig(crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.0), flip_probability=0.0)
    found = weak_augmentation(whole, 32, *words)(image)
    assert np.array_equal(np.asarray(found), np.asarray(image.resize((32, 32), filter_)))


@pytest.mark.parametrize("kind", ["linear", "finetune"])
def test_training_on_labels_resizes_as_the_evaluation_does(
    subject: Subject, knn_config: KNNConfig, workspace: Workspace, kind: str
) -> None:
    """The crops a probe and fine-tuning see change with data.eval_interpolation."""
    evaluator = EVALUATORS[kind]
    training = {"epochs": 1, "milestones": [], "batch_size": 30}
    section = {"linear": {"probe": training}, "finetune": {"tuning": training, "subset": None}}
    losses = []
    for interpolation in ("bilinear", "bicubic"):
        data = to_tree(knn_config.data) | {"eval_interpolation": interpolation}
        tree = {"data": data, "device": "cpu", **section[kind]}
        config = parse_tree(evaluator.config, tree, "test")
        result = evaluator.evaluate(subject, config, workspace)
        workspace.remove_states()
        losses.append(result.details["loss_by_epoch"][0])
    assert losses[0] != losses[1]


def test_statistics_belong_to_the_weights(finished_run: Path, knn_config: KNNConfig) -> None:
    """A checkpoint brings its own mean and std; a config that says otherwise is refused."""
    assert load_subject(finished_run, knn_config).mean == (0.3, 0.3, 0.3)
    tree = to_tree(knn_config)
    tree["data"] |= {"mean": [0.5, 0.5, 0.5], "std": [0.35, 0.35, 0.35]}
    with pytest.raises(UserError, match=r"data\.mean is set to"):
        load_subject(finished_run, parse_tree(KNNConfig, tree, "test"))


def test_another_architecture_than_the_checkpoint_is_refused(
    finished_run: Path, knn_config: KNNConfig
) -> None:
    """The config's backbone section must agree with the checkpoint."""
    tree = to_tree(knn_config) | {"backbone": {"arch": "resnet50", "stem": "standard"}}
    with pytest.raises(UserError, match=r"backbone\.arch is set to resnet50"):
        load_subject(finished_run, parse_tree(KNNConfig, tree, "test"))


def test_random_weights_follow_the_seed_alone(knn_config: KNNConfig) -> None:
    """The same seed gives the same weights and leaves the global generator where it was."""
    tree = to_tree(knn_config) | {"backbone": {"arch": "resnet18", "stem": "cifar"}}
    before = torch.get_rng_state()
    first, again, other = (
        load_subject(None, parse_tree(KNNConfig, tree | {"seed": seed}, "test")).backbone
        for seed in (1, 1, 2)
    )
    assert torch.equal(before, torch.get_rng_state())
    assert _state_bytes(first) == _state_bytes(again) != _state_bytes(other)
