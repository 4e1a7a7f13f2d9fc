from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from detection.engines.torchvision import proposals, regions
from detection.engines.torchvision.anchors import cell_anchors
from detection.engines.torchvision.detector import build_detector, check_trunk
from detection.engines.torchvision.run_state import parameter_groups
from detection.feeding.samples import TrainingSample
from detection.job.trunk import Trunk, load_trunk, random_trunk
from detection.recipe.architecture import PRE_NMS_TOP_K
from detection.recipe.recipe import Recipe, lr_schedule
from rsa_pretrain.plumbing.config.files import load_config
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.weights.checkpoint import LoadedBackbone

WriteCheckpoint = Callable[..., LoadedBackbone]
MakeRecipe = Callable[..., Recipe]

CONFIGS = Path(__file__).parents[3] / "configs" / "detection"
NORMS = (nn.BatchNorm2d, nn.SyncBatchNorm)


@pytest.fixture
def trunk(write_checkpoint: WriteCheckpoint, make_recipe: MakeRecipe) -> Trunk:
    """The ResNet-18 checkpoint as a trunk."""
    return load_trunk(write_checkpoint().path, make_recipe().model)


def _training_batch() -> list[TrainingSample]:
    torch.manual_seed(0)
    square = np.array([[8.0, 8.0], [40.0, 8.0], [40.0, 40.0], [8.0, 40.0]])
    return [
        TrainingSample(
            image=torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8),
            boxes=np.array([[8, 8, 40, 40]], dtype=np.float32),
            labels=np.array([1]),
            outlines=((square,),),
        )
        for _ in range(2)
    ]


@pytest.mark.parametrize("arch", ["resnet18", "resnet50"])
def test_pyramid_sees_the_checkpoint_s_features(
    write_checkpoint: WriteCheckpoint, make_recipe: MakeRecipe, arch: str
) -> None:
    """In eval mode the body's four maps are the backbone's layer1 … layer4, bitwise."""
    loaded = write_checkpoint(arch)
    recipe = make_recipe(model={"arch": arch})
    detector = build_detector(recipe, load_trunk(loaded.path, recipe.model), 3).eval()
    images = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found = detector.get_submodule("backbone.body")(images)
        features = images
        for name, module in loaded.backbone.named_children():
            if name in ("avgpool", "fc"):
                break
            features = module(features)
            if name.startswith("layer"):
                assert torch.equal(found[str(int(name[-1]) - 1)], features)
    assert len(found) == 4


@pytest.mark.parametrize(
    "name", ["conv1.weight", "layer4.1.bn2.running_var", "layer2.0.downsample.0.weight"]
)
def test_half_loaded_trunk_is_refused(trunk: Trunk, make_recipe: MakeRecipe, name: str) -> None:
    """One tensor that differs by one unit in the last place, or is absent, stops the start."""
    detector = build_detector(make_recipe(), trunk, 3)
    check_trunk(detector, trunk)
    changed = trunk.tensors[name].clone()
    changed.view(-1)[0] = torch.nextafter(changed.view(-1)[0], torch.tensor(9.0))
    with pytest.raises(RuntimeError, match=f"1 backbone tensors were not loaded: {name}"):
        check_trunk(detector, replace(trunk, tensors={**trunk.tensors, name: changed}))
    fewer = {key: tensor for key, tensor in trunk.tensors.items() if key != name}
    with pytest.raises(RuntimeError, match=f"1 backbone tensors were not loaded: {name}"):
        check_trunk(detector, replace(trunk, tensors=fewer))


def test_frozen_norms_keep_their_tensors(trunk: Trunk, make_recipe: MakeRecipe) -> None:
    """FrozenBN takes statistics and weights from the checkpoint and stays so in training."""
    detector = build_detector(make_recipe(model={"trunk_norm": "FrozenBN"}), trunk, 3).train()
    body = detector.get_submodule("backbone.body")
    assert not any(isinstance(module, NORMS) for module in body.modules())
    detector(_training_batch())
    check_trunk(detector, trunk)


def test_frozen_stages_stay(trunk: Trunk, make_recipe: MakeRecipe) -> None:
    """With freeze_at 2, stem and res2 get no gradient and no new statistics; res3 gets both."""
    detector = build_detector(make_recipe(model={"freeze_at": 2}), trunk, 3).train()
    torch.stack(list(detector(_training_batch()).values())).sum().backward()
    body = detector.get_submodule("backbone.body")
    for name, parameter in body.named_parameters():
        assert (parameter.grad is None) == name.startswith(("conv1", "bn1", "layer1")), name
    state = body.state_dict()
    for name in ("bn1.running_mean", "layer1.0.bn1.running_mean", "layer1.1.bn2.weight"):
        assert torch.equal(state[name], trunk.tensors[name])
    assert not torch.equal(
        state["layer2.0.bn1.running_mean"], trunk.tensors["layer2.0.bn1.running_mean"]
    )


def test_heads_follow_the_recipe(trunk: Trunk, make_recipe: MakeRecipe) -> None:
    """Convolutions, fully connected layers, norms, classes and top-k are the recipe's."""
    model = {"box_head_num_convs": 4, "box_head_num_fcs": 2, "mask_head_num_convs": 3}
    detector = build_detector(make_recipe(model=model), trunk, 7)
    heads = detector.roi_heads
    for head, num_convs in ((heads.box_head, 4), (heads.mask_head, 3)):
        assert sum(isinstance(part, nn.Conv2d) for part in head.modules()) == num_convs
        assert sum(isinstance(part, NORMS) for part in head.modules()) == num_convs
    assert sum(isinstance(part, nn.Linear) for part in heads.box_head.modules()) == 2
    assert heads.box_predictor.cls_score.out_features == 8
    assert (heads.box_pool.resolution, heads.mask_pool.resolution) == (7, 14)
    pyramid = detector.get_submodule("backbone.fpn")
    assert sum(isinstance(part, NORMS) for part in pyramid.modules()) == 8
    plain = build_detector(make_recipe(model={"head_norm": "none"}), trunk, 7)
    outside = [name for name, part in plain.named_modules() if isinstance(part, NORMS)]
    assert all(name.startswith("backbone.body.") for name in outside)


def test_input_is_normalised_with_the_checkpoint_s_statistics(
    trunk: Trunk, make_recipe: MakeRecipe
) -> None:
    """8-bit pixels are normalised by the trunk's statistics and padded with zeros to 32s."""
    detector = build_detector(make_recipe(), trunk, 3)
    mean, std = (torch.tensor(values)[:, None, None] for values in (trunk.mean, trunk.std))
    images = [
        torch.randint(0, 256, (3, height, width), dtype=torch.uint8)
        for height, width in ((32, 48), (40, 33))
    ]
    batch = detector.batched(images)
    assert batch.image_sizes == [(32, 48), (40, 33)]
    assert batch.tensors.shape == (2, 3, 64, 64)
    for canvas, image in zip(batch.tensors, images, strict=True):
        _, height, width = image.shape
        torch.testing.assert_close(canvas[:, :height, :width], (image / 255 - mean) / std)
        assert canvas[:, height:].abs().max() == canvas[:, :, width:].abs().max() == 0


@pytest.mark.parametrize(("name", "lr"), [("1x", 0.02), ("2x", 0.03)])
def test_paper_recipe_resolves_value_by_value(
    write_checkpoint: WriteCheckpoint, name: str, lr: float
) -> None:
    """The detectors built from the COCO configs are those of RECIPES.md, Section 4."""
    path = CONFIGS / f"mask_rcnn_R_50_FPN_{name}.yaml"
    recipe = load_config(Recipe, path, ["engine=torchvision"])
    trunk = load_trunk(write_checkpoint("resnet50").path, recipe.model)
    detector = build_detector(recipe, trunk, 80)
    parts = dict(detector.named_modules())
    norms = [name for name, part in parts.items() if isinstance(part, NORMS)]
    assert all(isinstance(parts[name], nn.SyncBatchNorm) for name in norms)
    assert sum(name.startswith("backbone.body.") for name in norms) == 53
    assert sum(name.startswith("backbone.fpn.") for name in norms) == 8
    assert sum(name.startswith("roi_heads.") for name in norms) == 8
    assert all(part.requires_grad for part in detector.parameters())
    assert [parts[f"roi_heads.box_head.{index}.0"].out_channels for index in range(4)] == [256] * 4
    assert parts["roi_heads.box_head.5"].out_features == 1024
    assert parts["roi_heads.mask_predictor.mask_fcn_logits"].out_channels == 81
    heads = detector.roi_heads
    assert (heads.box_pool.resolution, heads.mask_pool.resolution) == (7, 14)
    assert parts["backbone.body.layer2.0.conv1"].stride == (1, 1)
    assert parts["backbone.body.layer2.0.conv2"].stride == (2, 2)
    for cells, size in zip(detector.rpn.anchors.cells, (32, 64, 128, 256, 512), strict=True):
        assert torch.equal(cells, cell_anchors(size, (0.5, 1, 2)))
    assert PRE_NMS_TOP_K["FPN"] == (2000, 1000)
    assert (proposals.PROPOSAL_NMS_IOU, regions.NMS_IOU, regions.SCORE_THRESHOLD) == (
        0.7,
        0.5,
        0.05,
    )
    assert (detector.rpn._kept, detector.rpn._anchors_per_image) == ((1000, 1000), 256)
    assert heads._sampler.batch_size_per_image == 512
    assert (heads._sampler.positive_fraction, regions.OBJECT_IOU) == (0.25, 0.5)
    others, normed = parameter_groups(detector, recipe.solver)
    assert (others["weight_decay"], normed["weight_decay"]) == (1e-4, 0.0)
    schedule, share = recipe.solver.schedule, lr_schedule(recipe.solver)
    rates = [schedule.lr * share(at / schedule.iterations) for at in (0, 1000, *schedule.decay_at)]
    assert rates == pytest.approx([lr / 1000, lr, lr / 10, lr / 100])


def test_norms_are_not_decayed(trunk: Trunk, make_recipe: MakeRecipe) -> None:
    """Every trainable parameter is in one group, BatchNorm's in that of weight decay 0."""
    detector = build_detector(make_recipe(model={"freeze_at": 1}), trunk, 3)
    others, norms = parameter_groups(detector, make_recipe().solver)
    assert (others["weight_decay"], norms["weight_decay"]) == (1e-4, 0.0)
    names = {id(parameter): name for name, parameter in detector.named_parameters()}
    grouped = [names[id(part)] for group in (others, norms) for part in group["params"]]
    trainable = [name for name, part in detector.named_parameters() if part.requires_grad]
    assert sorted(grouped) == sorted(trainable)
    assert "backbone.body.conv1.weight" not in grouped
    assert all(part.ndim == 1 for part in norms["params"])
    num_norms = sum(
        isinstance(part, NORMS) and part.weight.requires_grad for part in detector.modules()
    )
    assert len(norms["params"]) == 2 * num_norms
    assert not any(isinstance(p, FrozenBatchNorm2d) for p in norms["params"])


def test_random_trunk_is_seeded_and_trainable(make_recipe: MakeRecipe) -> None:
    """The baseline repeats with its seed, and refuses to keep random weights fixed."""
    model = make_recipe().model
    first, second, other = (random_trunk(model, seed) for seed in (1, 1, 2))
    assert torch.equal(first.tensors["conv1.weight"], second.tensors["conv1.weight"])
    assert not torch.equal(first.tensors["conv1.weight"], other.tensors["conv1.weight"])
    for change in ({"trunk_norm": "FrozenBN"}, {"freeze_at": 1}):
        with pytest.raises(UserError, match="random weights fixed"):
            random_trunk(make_recipe(model=change).model, 0)
    with pytest.raises(UserError, match=r"needs model\.arch"):
        random_trunk(make_recipe(model={"arch": None}).model, 0)


def test_unsuitable_checkpoints_are_refused(
    write_checkpoint: WriteCheckpoint, make_recipe: MakeRecipe
) -> None:
    """A cifar stem has other strides, and another width or depth is not what the recipe says."""
    with pytest.raises(UserError, match="'cifar' stem"):
        load_trunk(write_checkpoint(stem="cifar").path, make_recipe().model)
    with pytest.raises(UserError, match=r"is a resnet18_w32; .* pretrain with backbone\.width=64"):
        load_trunk(write_checkpoint("resnet18_w32").path, make_recipe().model)
    with pytest.raises(UserError, match=r"is a resnet50, but model\.arch is resnet18"):
        load_trunk(write_checkpoint("resnet50").path, make_recipe().model)
