"""Express a recipe in detectron2's config keys, as plain data.

Omitted keys keep detectron2's defaults. The schedule is already the one at the recipe's batch size,
so detectron2 must not scale it again.
"""

from collections.abc import Iterable
from typing import Literal

from detection.coco.data_settings import DetectionData, SetRole
from detection.coco.sets import Annotation
from detection.exchange.anchors import anchor_tree
from detection.job.trunk import Trunk
from detection.recipe.architecture import (
    BASIC_BLOCK_ARCHS,
    PRE_NMS_TOP_K,
    HeadNorm,
    ModelConfig,
    RegionMaps,
    SamplingConfig,
    shallow_c4,
)
from detection.recipe.recipe import Recipe
from rsa_pretrain.components.settings import Arch
from rsa_pretrain.data.settings import RGB
from rsa_pretrain.plumbing.config.layers import Tree
from rsa_pretrain.plumbing.errors import UserError

MaskFormat = Literal["polygon", "bitmask"]

_STAGES = ("res2", "res3", "res4", "res5")
_MASK_HEAD = "MaskRCNNConvUpsampleHead"
_PYRAMID_LEVELS = ("p2", "p3", "p4", "p5")
MOCO_HEADS = "Res5ROIHeadsExtraNorm"
"""Name of the C4 heads with a norm after res5, in MoCo's release and here."""


def data_set_names(data: DetectionData, role: SetRole) -> list[str]:
    """Return the names under which the training or test images are registered."""
    if data.format == "coco":
        return [f"{data.name}_{role}"]
    return [f"{data.name}_{name.replace('/', '_')}" for name in data.sets_of(role)]


def mask_format(annotations: Iterable[Annotation]) -> MaskFormat:
    """Return detectron2's mask format for these instances: run-length codes need bitmasks."""
    coded = any(isinstance(annotation.get("segmentation"), dict) for annotation in annotations)
    return "bitmask" if coded else "polygon"


def weights_tree(arch: str, mean: RGB, std: RGB, norm: str) -> Tree:
    """Return the keys that a trunk's weights require.

    Args:
        arch: torchvision's name of the ResNet.
        mean: Input mean, RGB pixels in [0, 1].
        std: Input standard deviation, the same.
        norm: detectron2's name of the trunk's norm.
    """
    resnets: Tree = {
        "DEPTH": int(arch.removeprefix("resnet")),
        "STRIDE_IN_1X1": False,
        "NORM": norm,
    }
    if arch in BASIC_BLOCK_ARCHS:
        resnets["RES2_OUT_CHANNELS"] = 64
    return {
        "MODEL": {
            "RESNETS": resnets,
            "PIXEL_MEAN": [round(255 * value, 6) for value in mean],
            "PIXEL_STD": [round(255 * value, 6) for value in std],
        },
        "INPUT": {"FORMAT": "RGB"},
    }


def refuse_shallow(arch: Arch, features: RegionMaps) -> None:
    """Refuse a detector that detectron2 cannot build.

    Raises:
        UserError: If it is on C4 and its trunk has basic blocks.
    """
    problem = shallow_c4(arch, features)
    if problem is not None:
        raise UserError(problem)


def config_tree(recipe: Recipe, trunk: Trunk, num_classes: int, masks: MaskFormat) -> Tree:
    """Return the keys of a recipe.

    Args:
        recipe: The run.
        trunk: Initial trunk; only its architecture and pixel statistics are used.
        num_classes: Categories, without the background.
        masks: Format of the training masks.

    Raises:
        UserError: If the recipe asks for a flip probability that detectron2 has no key for, or for
            a detector that it cannot build.
    """
    refuse_shallow(trunk.backbone.arch, recipe.model.features)
    weights = weights_tree(trunk.backbone.arch, trunk.mean, trunk.std, recipe.model.trunk_norm)
    return {
        "VERSION": 2,
        "MODEL": model_tree(recipe.model, recipe.sampling, weights["MODEL"], num_classes),
        "INPUT": weights["INPUT"] | _input_tree(recipe, masks),
        "DATASETS": {
            "TRAIN": data_set_names(recipe.data, "train"),
            "TEST": data_set_names(recipe.data, "test"),
        },
        "DATALOADER": {
            "NUM_WORKERS": recipe.data.num_workers,
            "FILTER_EMPTY_ANNOTATIONS": not recipe.data.keep_empty_images,
        },
        "SOLVER": _solver_tree(recipe),
        "TEST": _test_tree(recipe),
        "OUTPUT_DIR": str(recipe.output_dir),
        "SEED": recipe.seed,
    }


def model_tree(
    model: ModelConfig, sampling: SamplingConfig, weights: Tree, num_classes: int
) -> Tree:
    """Return the keys from which a detector is built.

    Args:
        model: Architecture.
        sampling: Numbers of anchors, proposals and regions.
        weights: The ``MODEL`` part of ``weights_tree``.
        num_classes: Categories, without the background.
    """
    is_c4 = model.features == "C4"
    region_maps = ["res4"] if is_c4 else list(_PYRAMID_LEVELS)
    before_nms = PRE_NMS_TOP_K[model.features]
    return {
        "META_ARCHITECTURE": "GeneralizedRCNN",
        "MASK_ON": model.mask_head,
        "PIXEL_MEAN": weights["PIXEL_MEAN"],
        "PIXEL_STD": weights["PIXEL_STD"],
        "ANCHOR_GENERATOR": anchor_tree(model.anchors, model.features),
        "RPN": {
            "IN_FEATURES": region_maps if is_c4 else [*region_maps, "p6"],
            "BATCH_SIZE_PER_IMAGE": sampling.anchors_per_image,
            "PRE_NMS_TOPK_TRAIN": before_nms.train,
            "PRE_NMS_TOPK_TEST": before_nms.test,
            "POST_NMS_TOPK_TRAIN": sampling.num_proposals.train,
            "POST_NMS_TOPK_TEST": sampling.proposals_per_image,
        },
        "ROI_HEADS": {
            "NAME": _heads_name(model),
            "IN_FEATURES": region_maps,
            "NUM_CLASSES": num_classes,
            "BATCH_SIZE_PER_IMAGE": sampling.rois_per_image,
        },
        **(_c4_trees if is_c4 else _pyramid_trees)(model, weights["RESNETS"]),
    }


def _heads_name(model: ModelConfig) -> str:
    if model.features == "FPN":
        return "StandardROIHeads"
    return "Res5ROIHeads" if model.head_norm == "none" else MOCO_HEADS


def _pyramid_trees(model: ModelConfig, resnets: Tree) -> Tree:
    """Return the keys of the trunk, the pyramid and heads of new layers."""
    norm = _norm_name(model.head_norm)
    trees: Tree = {
        "BACKBONE": {"NAME": "build_resnet_fpn_backbone", "FREEZE_AT": model.freeze_at},
        "RESNETS": resnets | {"OUT_FEATURES": list(_STAGES)},
        "FPN": {"IN_FEATURES": list(_STAGES), "NORM": _norm_name(model.norm_of_pyramid)},
        "ROI_BOX_HEAD": {
            "NAME": "FastRCNNConvFCHead",
            "NUM_CONV": model.box_head_num_convs,
            "NUM_FC": model.box_head_num_fcs,
            "NORM": norm,
            "POOLER_RESOLUTION": 7,
        },
    }
    if model.mask_head:
        trees["ROI_MASK_HEAD"] = {
            "NAME": _MASK_HEAD,
            "NUM_CONV": model.mask_head_num_convs,
            "NORM": norm,
            "POOLER_RESOLUTION": 14,
        }
    return trees


def _c4_trees(model: ModelConfig, resnets: Tree) -> Tree:
    """Return the keys of the trunk and of heads that are its last stage."""
    trees: Tree = {
        "BACKBONE": {"NAME": "build_resnet_backbone", "FREEZE_AT": model.freeze_at},
        "RESNETS": resnets | {"OUT_FEATURES": ["res4"]},
        "ROI_BOX_HEAD": {"POOLER_RESOLUTION": 14},
    }
    if model.mask_head:
        # Without convolutions it reads no norm, and no pooler of its own.
        trees["ROI_MASK_HEAD"] = {"NAME": _MASK_HEAD, "NUM_CONV": 0}
    return trees


def _norm_name(norm: HeadNorm) -> str:
    return "" if norm == "none" else norm


def _input_tree(recipe: Recipe, masks: MaskFormat) -> Tree:
    settings = recipe.input
    flips = {0.0: "none", 0.5: "horizontal"}
    if settings.flip_probability not in flips:
        raise UserError(
            f"input.flip_probability is {settings.flip_probability}; detectron2 has 0 and 0.5 only"
        )
    return {
        "MIN_SIZE_TRAIN": list(settings.train_short_sides_pixels),
        "MIN_SIZE_TRAIN_SAMPLING": "choice",
        "MAX_SIZE_TRAIN": settings.max_side_pixels,
        "MIN_SIZE_TEST": settings.test_short_side_pixels,
        "MAX_SIZE_TEST": settings.max_side_pixels,
        "RANDOM_FLIP": flips[settings.flip_probability],
        "MASK_FORMAT": masks,
    }


def _solver_tree(recipe: Recipe) -> Tree:
    solver, schedule = recipe.solver, recipe.solver.schedule
    return {
        "IMS_PER_BATCH": solver.batch_size,
        "BASE_LR": schedule.lr,
        "MAX_ITER": schedule.iterations,
        "STEPS": list(schedule.decay_at),
        "GAMMA": 0.1,
        "WARMUP_METHOD": "linear",
        "WARMUP_ITERS": schedule.warmup_iterations,
        "WARMUP_FACTOR": solver.warmup_factor,
        "MOMENTUM": solver.sgd_momentum,
        "WEIGHT_DECAY": solver.weight_decay,
        "WEIGHT_DECAY_NORM": solver.norm_weight_decay,
        "CHECKPOINT_PERIOD": recipe.training.checkpoint_every_iterations,
        "AMP": {"ENABLED": recipe.training.precision != "fp32"},
    }


def _test_tree(recipe: Recipe) -> Tree:
    training = recipe.training
    precise: Tree = {"ENABLED": training.precise_bn_iterations is not None}
    if training.precise_bn_iterations is not None:
        precise["NUM_ITER"] = training.precise_bn_iterations
    return {
        "EVAL_PERIOD": training.evaluate_every_iterations or 0,
        "DETECTIONS_PER_IMAGE": recipe.sampling.detections_per_image,
        "PRECISE_BN": precise,
    }
