from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from detection.engines.torchvision.detector import build_detector
from detection.exchange.model_names import HeadLayers, ModelKeyMap
from detection.exchange.model_weights import (
    heads_of,
    num_classes,
    to_detectron2_model,
    to_torchvision_model,
)
from detection.job.trunk import random_trunk
from detection.recipe.recipe import Recipe
from rsa_pretrain.plumbing.errors import UserError

MakeRecipe = Callable[..., Recipe]
Tensors = dict[str, Tensor]

CLASS, OFFSETS = "roi_heads.box_predictor.cls_score", "roi_heads.box_predictor.bbox_pred"
MASKS = "roi_heads.mask_predictor.mask_fcn_logits"


@pytest.fixture
def model(make_recipe: MakeRecipe) -> Callable[..., Tensors]:
    """Return a function that builds a detector's tensors, all of them random."""

    def build(**changes: object) -> Tensors:
        layers = {"box_head_num_convs": 2, "box_head_num_fcs": 2, "mask_head_num_convs": 3}
        recipe = make_recipe(model={**layers, "trunk_norm": "BN", "head_norm": "BN", **changes})
        state = build_detector(recipe, random_trunk(recipe.model, 0), 5).state_dict()
        generator = torch.Generator().manual_seed(1)
        for name, tensor in state.items():
            if tensor.is_floating_point():
                tensor.normal_(generator=generator)
            if name.startswith(OFFSETS):
                tensor[:4] = 0
            if name.startswith(MASKS):
                tensor[:1] = 0
        return dict(state)

    return build


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"head_norm": "none", "box_head_num_convs": 0},
        {"head_norm": "none", "pyramid_norm": "BN"},
        {"arch": "resnet50"},
        {"features": "C4"},
        {"features": "C4", "head_norm": "none", "mask_head": False, "arch": "resnet50"},
    ],
    ids=["norms", "plain two-fc head", "moco", "bottlenecks", "c4", "plain c4 without masks"],
)
def test_inverse_restores_the_model_bitwise(
    model: Callable[..., Tensors], c4: dict[str, object], changes: dict[str, object]
) -> None:
    """Every tensor is used once, under another name, and comes back as it was."""
    source = model(**(c4 | changes if "features" in changes else changes))
    renamed = to_detectron2_model(source)
    assert len(renamed) == len(source)
    restored = to_torchvision_model(renamed)
    assert restored.keys() == source.keys()
    for name, tensor in source.items():
        assert restored[name].dtype == tensor.dtype
        assert torch.equal(restored[name], tensor), name


def test_names_by_hand(model: Callable[..., Tensors]) -> None:
    """detectron2's spelling of each part."""
    renamed = to_detectron2_model(model())
    expected = {
        "backbone.bottom_up.res3.0.shortcut.norm.running_var",
        "backbone.fpn_lateral2.weight",
        "backbone.fpn_output5.norm.num_batches_tracked",
        "proposal_generator.rpn_head.conv.bias",
        "proposal_generator.rpn_head.anchor_deltas.weight",
        "roi_heads.box_head.conv2.norm.bias",
        "roi_heads.box_head.fc1.weight",
        "roi_heads.box_head.fc2.bias",
        "roi_heads.box_predictor.bbox_pred.weight",
        "roi_heads.mask_head.mask_fcn3.weight",
        "roi_heads.mask_head.deconv.bias",
        "roi_heads.mask_head.predictor.weight",
    }
    assert expected <= renamed.keys()


def test_names_on_c4_by_hand(model: Callable[..., Tensors], c4: dict[str, object]) -> None:
    """The trunk has no ``bottom_up``; its last stage and the norm after it are the head's."""
    renamed = to_detectron2_model(model(**c4))
    assert {
        "backbone.stem.conv1.norm.running_mean",
        "backbone.res4.1.conv2.weight",
        "proposal_generator.rpn_head.anchor_deltas.bias",
        "roi_heads.res5.0.shortcut.norm.running_var",
        "roi_heads.res5.norm.weight",
        "roi_heads.res5.norm.num_batches_tracked",
        "roi_heads.box_predictor.cls_score.weight",
        "roi_heads.mask_head.deconv.bias",
        "roi_heads.mask_head.predictor.weight",
    } <= renamed.keys()
    assert not [name for name in renamed if ".bottom_up." in name or "box_head" in name]
    assert not [name for name in renamed if name.startswith("backbone.res5")]


def test_background_moves_from_first_to_last(model: Callable[..., Tensors]) -> None:
    """Class c of one is class c + 1 of the other, for scores, offsets and masks."""
    source = model()
    renamed = to_detectron2_model(source)
    for leaf in ("weight", "bias"):
        scores = renamed[f"roi_heads.box_predictor.cls_score.{leaf}"]
        assert torch.equal(scores[2], source[f"{CLASS}.{leaf}"][3])
        assert torch.equal(scores[5], source[f"{CLASS}.{leaf}"][0])
        offsets = renamed[f"roi_heads.box_predictor.bbox_pred.{leaf}"]
        assert len(offsets) == 20
        assert torch.equal(offsets[8:12], source[f"{OFFSETS}.{leaf}"][12:16])
        masks = renamed[f"roi_heads.mask_head.predictor.{leaf}"]
        assert len(masks) == 5
        assert torch.equal(masks[2], source[f"{MASKS}.{leaf}"][3])


def test_architecture_is_read_from_the_names(model: Callable[..., Tensors]) -> None:
    """Layers are counted and classes are those without the background."""
    source = model()
    assert heads_of(source) == HeadLayers("FPN", box_convs=2, box_fcs=2, mask_convs=3)
    assert num_classes(source) == 5


def test_unknown_names_raise(model: Callable[..., Tensors]) -> None:
    """A tensor of another model cannot be smuggled through, in either direction."""
    source = model()
    with pytest.raises(ValueError, match=r"'roi_heads\.keypoint\.weight' is not a tensor"):
        to_detectron2_model({**source, "roi_heads.keypoint.weight": torch.zeros(1)})
    with pytest.raises(ValueError, match=r"'projector\.weight' is not a tensor of detectron2's"):
        to_torchvision_model({**to_detectron2_model(source), "projector.weight": torch.zeros(1)})
    names = ModelKeyMap(heads_of(source))
    for name in ("roi_heads.box_head.2.0.weight", "rpn.head.conv.0.1.weight", CLASS):
        with pytest.raises(ValueError, match="is not a tensor"):
            names.to_detectron2(name)


def test_class_agnostic_heads_are_refused(model: Callable[..., Tensors]) -> None:
    """Boxes or masks that all classes share have no counterpart."""
    renamed = to_detectron2_model(model())
    for name, rows in (
        ("roi_heads.box_predictor.bbox_pred", 4),
        ("roi_heads.mask_head.predictor", 1),
    ):
        shared = {f"{name}.{leaf}": renamed[f"{name}.{leaf}"][:rows] for leaf in ("weight", "bias")}
        with pytest.raises(UserError, match="class-agnostic heads have no counterpart"):
            to_torchvision_model({**renamed, **shared})


def test_models_without_mask_head_are_converted(model: Callable[..., Tensors]) -> None:
    """A Faster R-CNN goes to detectron2 and back bitwise, but for the offsets nothing reads."""
    source = {name: tensor for name, tensor in model().items() if "mask" not in name}
    there = to_detectron2_model(source)
    assert not [name for name in there if "mask" in name]
    back = to_torchvision_model(there)
    assert back.keys() == source.keys()
    for name, tensor in source.items():
        unread = slice(4, None) if name.startswith("roi_heads.box_predictor.bbox_pred") else ...
        assert torch.equal(back[name][unread], tensor[unread])
    assert num_classes(source) == num_classes(back) == 5


def test_half_a_mask_head_is_refused(model: Callable[..., Tensors]) -> None:
    """A Mask R-CNN without its last layer is not taken for a Faster R-CNN."""
    fewer = {name: tensor for name, tensor in model().items() if "mask_fcn_logits" not in name}
    with pytest.raises(UserError, match=r"not a Mask R-CNN: it lacks roi_heads\.mask_predictor"):
        to_detectron2_model(fewer)
    with pytest.raises(UserError, match="not a Mask R-CNN"):
        to_torchvision_model({"backbone.fpn_lateral2.weight": torch.zeros(1)})
