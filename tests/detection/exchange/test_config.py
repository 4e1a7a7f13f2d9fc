from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from detection.exchange.config import config_tree, mask_format
from detection.job.trunk import Trunk, random_trunk
from detection.recipe.recipe import Recipe
from rsa_pretrain.plumbing.config.files import flatten, load_config
from rsa_pretrain.plumbing.errors import UserError

CONFIGS = Path(__file__).parents[3] / "configs" / "detection"
MakeRecipe = Callable[..., Recipe]

# RECIPES.md, Section 4: what InfoMin's public configs resolve to.
INFOMIN = {
    "MODEL.MASK_ON": True,
    "MODEL.BACKBONE.FREEZE_AT": 0,
    "MODEL.RESNETS.DEPTH": 50,
    "MODEL.RESNETS.NORM": "SyncBN",
    "MODEL.RESNETS.STRIDE_IN_1X1": False,
    "MODEL.FPN.NORM": "SyncBN",
    "MODEL.ROI_HEADS.NUM_CLASSES": 80,
    "MODEL.ROI_BOX_HEAD.NAME": "FastRCNNConvFCHead",
    "MODEL.ROI_BOX_HEAD.NUM_CONV": 4,
    "MODEL.ROI_BOX_HEAD.NUM_FC": 1,
    "MODEL.ROI_BOX_HEAD.NORM": "SyncBN",
    "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION": 7,
    "MODEL.ROI_MASK_HEAD.NUM_CONV": 4,
    "MODEL.ROI_MASK_HEAD.NORM": "SyncBN",
    "MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION": 14,
    "MODEL.PIXEL_MEAN": [123.675, 116.280, 103.530],
    "MODEL.PIXEL_STD": [58.395, 57.120, 57.375],
    "INPUT.FORMAT": "RGB",
    "INPUT.MIN_SIZE_TRAIN": [640, 672, 704, 736, 768, 800],
    "INPUT.MAX_SIZE_TRAIN": 1333,
    "INPUT.MIN_SIZE_TEST": 800,
    "INPUT.MAX_SIZE_TEST": 1333,
    "TEST.PRECISE_BN.ENABLED": True,
    "TEST.PRECISE_BN.NUM_ITER": 200,
    "SOLVER.IMS_PER_BATCH": 16,
    "SOLVER.WARMUP_ITERS": 1000,
    "SOLVER.WARMUP_FACTOR": 0.001,
    "SOLVER.WEIGHT_DECAY": 1e-4,
}
# The rates are the RSA paper's.
SCHEDULES = {
    "1x": {"SOLVER.BASE_LR": 0.02, "SOLVER.MAX_ITER": 90_000, "SOLVER.STEPS": [60_000, 80_000]},
    "2x": {"SOLVER.BASE_LR": 0.03, "SOLVER.MAX_ITER": 180_000, "SOLVER.STEPS": [120_000, 160_000]},
}


# facebookresearch/moco (b8ae0d9), detection/configs: Base-RCNN-C4-BN and coco_R_50_C4_2x_moco. Its
# NORM was SyncBN until detectron2's naiveSyncBN; both are the statistics of all processes.
MOCO_C4 = {
    "MODEL.META_ARCHITECTURE": "GeneralizedRCNN",
    "MODEL.MASK_ON": True,
    "MODEL.RPN.PRE_NMS_TOPK_TEST": 6000,
    "MODEL.RPN.POST_NMS_TOPK_TEST": 1000,
    "MODEL.ROI_HEADS.NAME": "Res5ROIHeadsExtraNorm",
    "MODEL.BACKBONE.FREEZE_AT": 0,
    "MODEL.RESNETS.NORM": "SyncBN",
    "MODEL.RESNETS.STRIDE_IN_1X1": False,
    "MODEL.PIXEL_MEAN": [123.675, 116.280, 103.530],
    "MODEL.PIXEL_STD": [58.395, 57.120, 57.375],
    "TEST.PRECISE_BN.ENABLED": True,
    "SOLVER.IMS_PER_BATCH": 16,
    "SOLVER.BASE_LR": 0.02,
    "SOLVER.STEPS": [120_000, 160_000],
    "SOLVER.MAX_ITER": 180_000,
    "INPUT.FORMAT": "RGB",
    "INPUT.MIN_SIZE_TRAIN": [640, 672, 704, 736, 768, 800],
    "INPUT.MIN_SIZE_TEST": 800,
}


@pytest.fixture(scope="module")
def trunk() -> Trunk:
    """Random weights and ImageNet's statistics."""
    recipe = load_config(Recipe, CONFIGS / "mask_rcnn_R_50_FPN_1x.yaml")
    return random_trunk(recipe.model, 0)


def _merged(tree: dict[str, Any]) -> dict[str, Any]:
    """Lay the keys over detectron2's defaults, as its programs do; an unknown key fails."""
    from detectron2.config import CfgNode, get_cfg

    config = get_cfg()
    config.merge_from_other_cfg(CfgNode(tree))

    def plain(node: Any) -> Any:
        if isinstance(node, dict):
            return {key: plain(value) for key, value in node.items()}
        return list(node) if isinstance(node, tuple) else node

    merged: dict[str, Any] = plain(config)
    return merged


@pytest.mark.parametrize(
    "in_detectron2",
    [
        pytest.param(False, id="as data"),
        pytest.param(True, id="in detectron2", marks=pytest.mark.detectron2),
    ],
)
@pytest.mark.parametrize("schedule", ["1x", "2x"])
def test_recipes_are_infomin_s_value_by_value(
    trunk: Trunk, schedule: str, in_detectron2: bool
) -> None:
    """The COCO recipes resolve to InfoMin's keys with the paper's rates, in detectron2 too."""
    recipe = load_config(Recipe, CONFIGS / f"mask_rcnn_R_50_FPN_{schedule}.yaml")
    tree = config_tree(recipe, trunk, 80, "polygon")
    found = flatten(_merged(tree) if in_detectron2 else tree)
    expected = INFOMIN | SCHEDULES[schedule]
    assert {key: found[key] for key in expected} == expected


@pytest.mark.detectron2
def test_moco_s_c4_is_its_release_over_detectron2_s_defaults(trunk: Trunk) -> None:
    """Keys that the release states have its values, all others detectron2's defaults."""
    from detectron2.config import get_cfg

    recipe = load_config(Recipe, CONFIGS / "moco_mask_rcnn_R_50_C4_2x.yaml")
    ours = flatten(_merged(config_tree(recipe, trunk, 80, "polygon")))
    defaults = flatten(get_cfg())
    differing = {key for key in ours if _listed(ours[key]) != _listed(defaults[key])}
    assert {key: ours[key] for key in MOCO_C4} == MOCO_C4
    own = {"DATASETS.TRAIN", "DATASETS.TEST", "OUTPUT_DIR", "SEED"}
    assert differing <= set(MOCO_C4) | own


@pytest.mark.detectron2
def test_moco_s_pyramid_is_the_zoo_s_but_for_its_norms(trunk: Trunk) -> None:
    """Heads, proposals and schedule are detectron2's own; norms and input are MoCo's."""
    recipe = load_config(Recipe, CONFIGS / "moco_mask_rcnn_R_50_FPN_1x.yaml")
    ours = flatten(_merged(config_tree(recipe, trunk, 80, "polygon")))
    theirs = _zoo()
    differing = {key for key in ours if _listed(ours[key]) != _listed(theirs[key])}
    own = {"MODEL.WEIGHTS", "DATASETS.TRAIN", "DATASETS.TEST", "OUTPUT_DIR", "SEED"}
    assert differing - own == {
        "MODEL.BACKBONE.FREEZE_AT",
        "MODEL.RESNETS.NORM",
        "MODEL.RESNETS.STRIDE_IN_1X1",
        "MODEL.FPN.NORM",
        "MODEL.PIXEL_MEAN",
        "MODEL.PIXEL_STD",
        "INPUT.FORMAT",
        "TEST.PRECISE_BN.ENABLED",
    }
    assert (ours["MODEL.FPN.NORM"], ours["MODEL.RESNETS.NORM"]) == ("SyncBN", "SyncBN")


@pytest.mark.detectron2
def test_the_rest_is_the_zoo_s(trunk: Trunk) -> None:
    """Where InfoMin says nothing, the keys are those of detectron2's own Mask R-CNN R50-FPN."""
    recipe = load_config(Recipe, CONFIGS / "mask_rcnn_R_50_FPN_1x.yaml")
    ours = flatten(_merged(config_tree(recipe, trunk, 80, "polygon")))
    theirs = _zoo()
    differing = {key for key in ours if _listed(ours[key]) != _listed(theirs[key])}
    own = {"MODEL.WEIGHTS", "DATASETS.TRAIN", "DATASETS.TEST", "OUTPUT_DIR", "SEED"}
    assert differing <= set(INFOMIN) | own


def _zoo() -> dict[str, Any]:
    """Return the keys of detectron2's own Mask R-CNN R50-FPN 1x."""
    import detectron2
    from detectron2.config import get_cfg

    package = Path(detectron2.__file__).parent
    name = "configs/COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml"
    installed, in_source = package / "model_zoo" / name, package.parent / name
    zoo = get_cfg()
    zoo.merge_from_file(str(installed if installed.is_file() else in_source))
    return flatten(zoo)


def _listed(value: Any) -> Any:
    return [_listed(part) for part in value] if isinstance(value, list | tuple) else value


def test_keys_that_belong_to_the_weights_follow_the_trunk(make_recipe: MakeRecipe) -> None:
    """Colour order, pixel statistics, stride and basic blocks are the trunk's, in 0-255."""
    recipe = make_recipe()
    small = random_trunk(recipe.model, 0)
    other = Trunk(small.backbone, small.tensors, (0.5, 0.4, 0.3), (0.25, 0.2, 0.1), small.subject)
    found = flatten(config_tree(recipe, other, 3, "polygon"))
    expected = {
        "INPUT.FORMAT": "RGB",
        "MODEL.PIXEL_MEAN": [127.5, 102.0, 76.5],
        "MODEL.PIXEL_STD": [63.75, 51.0, 25.5],
        "MODEL.RESNETS.STRIDE_IN_1X1": False,
        "MODEL.RESNETS.DEPTH": 18,
        "MODEL.RESNETS.RES2_OUT_CHANNELS": 64,
    }
    assert {key: found[key] for key in expected} == expected


def test_settings_reach_their_keys(make_recipe: MakeRecipe) -> None:
    """A recipe's changes arrive: norms, sampling, schedule at its batch size, evaluation."""
    recipe = make_recipe(
        model={
            "trunk_norm": "FrozenBN",
            "head_norm": "none",
            "freeze_at": 2,
            "anchor_sizes_pixels": [8, 16, 32, 64, 128],
            "anchor_aspect_ratios": [0.25, 4],
        },
        solver={"batch_size": 4, "decay_at": [2], "iterations": 8},
        training={"evaluate_every_iterations": 7, "precision": "fp16"},
        data={"keep_empty_images": True},
        input={"flip_probability": 0.0},
    )
    trunk = random_trunk(make_recipe().model, 0)
    found = flatten(config_tree(recipe, trunk, 3, "bitmask"))
    expected = {
        "MODEL.RESNETS.NORM": "FrozenBN",
        "MODEL.FPN.NORM": "",
        "MODEL.ROI_MASK_HEAD.NORM": "",
        "MODEL.BACKBONE.FREEZE_AT": 2,
        "MODEL.ANCHOR_GENERATOR.SIZES": [[8], [16], [32], [64], [128]],
        "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS": [[0.25, 4]],
        "MODEL.RPN.BATCH_SIZE_PER_IMAGE": 32,
        "MODEL.RPN.POST_NMS_TOPK_TRAIN": 20,
        "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": 8,
        "DATALOADER.FILTER_EMPTY_ANNOTATIONS": False,
        "TEST.DETECTIONS_PER_IMAGE": 5,
        "TEST.EVAL_PERIOD": 7,
        "TEST.PRECISE_BN.ENABLED": False,
        "SOLVER.BASE_LR": 0.005,
        "SOLVER.MAX_ITER": 4,
        "SOLVER.STEPS": [1],
        "SOLVER.WARMUP_ITERS": 1,
        "SOLVER.AMP.ENABLED": True,
        "INPUT.RANDOM_FLIP": "none",
        "INPUT.MASK_FORMAT": "bitmask",
    }
    assert {key: found[key] for key in expected} == expected


def test_flip_without_a_key_is_refused(make_recipe: MakeRecipe) -> None:
    """detectron2 flips half of the images or none."""
    recipe = make_recipe(input={"flip_probability": 0.3})
    with pytest.raises(UserError, match=r"flip_probability is 0\.3; detectron2 has 0 and 0\.5"):
        config_tree(recipe, random_trunk(recipe.model, 0), 3, "polygon")


def test_mask_format_follows_the_annotations() -> None:
    """One run-length code makes them all bitmaps; polygons stay polygons."""
    polygon, code = {"segmentation": [[0, 0, 1, 0, 1, 1]]}, {"segmentation": {"counts": "x"}}
    assert mask_format([polygon, polygon]) == "polygon"
    assert mask_format([polygon, code]) == "bitmask"


@pytest.mark.detectron2
@pytest.mark.parametrize("batch_size", [2, 4, 6, 8, 14, 32, 64])
def test_scaling_is_detectron2_s(trunk: Trunk, batch_size: int) -> None:
    """Rate, steps and warm-up at another batch are those of its reference-world-size rule."""
    from detectron2.config import CfgNode, get_cfg
    from detectron2.engine import DefaultTrainer

    path = CONFIGS / "mask_rcnn_R_50_FPN_2x.yaml"
    config = get_cfg()
    tree = config_tree(load_config(Recipe, path), trunk, 80, "polygon")
    config.merge_from_other_cfg(CfgNode(tree))
    config.SOLVER.REFERENCE_WORLD_SIZE = 8
    theirs = DefaultTrainer.auto_scale_workers(config, batch_size // 2).SOLVER
    recipe = load_config(Recipe, path, [f"solver.batch_size={batch_size}"])
    ours = config_tree(recipe, trunk, 80, "polygon")["SOLVER"]
    for key in ("IMS_PER_BATCH", "BASE_LR", "MAX_ITER", "STEPS", "WARMUP_ITERS"):
        assert _listed(ours[key]) == _listed(theirs[key]), key
