"""Derive and check the detectron2 keys that make its detector equal the torchvision engine's."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from detection.exchange.anchors import SECTION as ANCHOR_SECTION
from detection.exchange.config import model_tree, weights_tree
from detection.exchange.model_names import OBJECTNESS, PYRAMID_NORM, STAGE_NORM
from detection.exchange.model_weights import has_mask_head, heads_of, num_classes
from detection.exchange.trunk_names import (
    BATCH_COUNT,
    IN_DETECTRON2,
    features_of,
    trunk_tensors,
)
from detection.exchange.trunk_shapes import enumerated_shapes
from detection.job.detector_card import DetectorCard
from detection.recipe.architecture import (
    DEFAULT_ANCHORS,
    PRE_NMS_TOP_K,
    Anchors,
    HeadNorm,
    ModelConfig,
    RegionMaps,
    SamplingConfig,
)
from rsa_pretrain.components.settings import ARCHS, Arch
from rsa_pretrain.data.settings import RGB
from rsa_pretrain.plumbing.config.files import flatten, parse_tree
from rsa_pretrain.plumbing.config.layers import Tree
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.weights.metadata import BackboneMetadata

_STAGES = ("bn1", "layer1", "layer2", "layer3", "layer4")
# Keys of model_tree that weights do not decide: numbers of anchors and regions, trained layers,
# processes that share a norm's statistics, and pixels and anchors, which are read instead.
_FREE = (
    f"{ANCHOR_SECTION}.SIZES",
    f"{ANCHOR_SECTION}.ASPECT_RATIOS",
    "MODEL.BACKBONE.FREEZE_AT",
    "MODEL.PIXEL_",
    "MODEL.RPN.",
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE",
)
_NORM_KEYS = ("MODEL.FPN.NORM", "MODEL.ROI_BOX_HEAD.NORM", "MODEL.ROI_MASK_HEAD.NORM")
_TRUNK_NORM = "MODEL.RESNETS.NORM"
_HEAD_CONV, _HEAD_NORM = (
    re.compile(rf"roi_heads\.(box|mask)_head\.\d+\.{part}\.weight") for part in (0, 1)
)
_NORMS = ("BN", "SyncBN", "naiveSyncBN", "FrozenBN")
# detectron2's defaults that are fixed in the torchvision engine; a config may omit them.
_BUILT_IN: dict[str, Any] = {
    "MODEL.ANCHOR_GENERATOR.NAME": "DefaultAnchorGenerator",
    "MODEL.ANCHOR_GENERATOR.OFFSET": 0.0,
    "MODEL.FPN.FUSE_TYPE": "sum",
    "MODEL.FPN.OUT_CHANNELS": 256,
    "MODEL.RPN.BBOX_REG_WEIGHTS": (1.0, 1.0, 1.0, 1.0),
    "MODEL.RPN.NMS_THRESH": 0.7,
    "MODEL.ROI_HEADS.SCORE_THRESH_TEST": 0.05,
    "MODEL.ROI_HEADS.NMS_THRESH_TEST": 0.5,
    "MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS": (10.0, 10.0, 5.0, 5.0),
    "MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG": False,
    "MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO": 0,
    "MODEL.ROI_BOX_HEAD.POOLER_TYPE": "ROIAlignV2",
    "MODEL.ROI_MASK_HEAD.CLS_AGNOSTIC_MASK": False,
    "MODEL.ROI_MASK_HEAD.POOLER_SAMPLING_RATIO": 0,
    "MODEL.ROI_MASK_HEAD.POOLER_TYPE": "ROIAlignV2",
}


class Description(NamedTuple):
    """A detector's architecture as read from its tensors."""

    arch: Arch
    model: ModelConfig
    num_classes: int


def recognise_arch(model: Mapping[str, Tensor]) -> Arch:
    """Recognise a trunk's architecture by its tensors under detectron2's names.

    Raises:
        UserError: If none matches: another depth, another width, or grouped convolutions.
    """
    features = features_of(model)
    found = {
        name: tuple(tensor.shape)
        for name, tensor in model.items()
        if IN_DETECTRON2[features].to_torchvision(name) and not name.endswith(BATCH_COUNT)
    }
    for arch in ARCHS:
        if found == enumerated_shapes(arch, features):
            return arch
    raise UserError(
        f"the detector's {len(found)} backbone tensors match none of {', '.join(ARCHS)}"
    )


def describe_model(
    tensors: Mapping[str, Tensor], arch: Arch, anchors: Anchors = DEFAULT_ANCHORS
) -> Description:
    """Read the architecture from a detector's tensors.

    Args:
        tensors: Keyed by the torchvision engine's names.
        arch: Its trunk.
        anchors: Sizes and shapes, of which the tensors tell only the number.

    Raises:
        UserError: If the tensors have another number of anchors, or belong to no such detector.
    """
    heads = heads_of(tensors)
    _check_anchors(tensors, anchors, heads.features)
    has_masks = has_mask_head(tensors)
    trunk = trunk_tensors(tensors)
    frozen = [_is_frozen(trunk, stage) for stage in _STAGES]
    is_c4 = heads.features == "C4"
    head_norm, pyramid_norm = _norms_of(tensors, is_c4)
    tree: Tree = {
        "arch": arch,
        "features": heads.features,
        "trunk_norm": "FrozenBN" if all(frozen) else "BN",
        "freeze_at": 0 if all(frozen) else frozen.index(False),
        "head_norm": head_norm,
        "pyramid_norm": pyramid_norm,
        "box_head_num_convs": heads.box_convs,
        "box_head_num_fcs": heads.box_fcs,
        "mask_head": has_masks,
        **({"mask_head_num_convs": heads.mask_convs} if has_masks or is_c4 else {}),
        "anchor_sizes_pixels": list(anchors.sizes_pixels),
        "anchor_aspect_ratios": list(anchors.aspect_ratios),
    }
    model = parse_tree(ModelConfig, tree, "the detector's tensors")
    return Description(arch, model, num_classes(tensors))


def paired_model_config(
    tensors: Mapping[str, Tensor], metadata: BackboneMetadata, card: DetectorCard, weights: Path
) -> Tree:
    """Return the detectron2 keys that belong to a detector's weights.

    Args:
        tensors: Keyed by the torchvision engine's names.
        metadata: Of the weights.
        card: Of the weights.
        weights: The file that detectron2 will read.
    """
    found = describe_model(tensors, metadata.network.arch, card.model.anchors)
    tree = _expected_tree(found, metadata.mean, metadata.std, card.sampling)
    tree["MODEL"]["WEIGHTS"] = str(weights)
    tree["INPUT"] |= {
        "MIN_SIZE_TEST": card.input.test_short_side_pixels,
        "MAX_SIZE_TEST": card.input.max_side_pixels,
    }
    tree["TEST"] = {"DETECTIONS_PER_IMAGE": card.sampling.detections_per_image}
    return tree


def check_settings(settings: Mapping[str, Any], found: Description, path: Path) -> None:
    """Refuse a detectron2 config under which the weights compute something different.

    Args:
        settings: The config's keys, nested.
        found: Architecture read from the tensors.
        path: Names the config in errors.

    Raises:
        UserError: Lists the keys that differ or are missing.
    """
    unit: RGB = (1.0, 1.0, 1.0)
    expected_tree = _expected_tree(found, unit, unit, SamplingConfig())
    stated = flatten(dict(settings))
    wrong = []
    for key, expected in flatten(expected_tree).items():
        if key.startswith(_FREE):
            continue
        value, is_norm = stated.get(key), key in (_TRUNK_NORM, *_NORM_KEYS)
        if not is_norm and not _same(value, expected):
            wrong.append(f"{key} is {value!r}, expected {expected!r}")
        elif is_norm and (value in _NORMS) != (expected in _NORMS):
            wrong.append(f"{key} is {value!r}, but the tensors have {expected or 'no norm'!r}")
    top_k = {"MODEL.RPN.PRE_NMS_TOPK_TEST": PRE_NMS_TOP_K[found.model.features].test}
    for key, expected in (_BUILT_IN | top_k).items():
        if key in stated and not _same(stated[key], expected):
            wrong.append(f"{key} is {stated[key]!r}, expected {expected!r}")
    if wrong:
        raise UserError(
            f"under '{path}' detectron2 computes something that the torchvision engine cannot: "
            + "; ".join(wrong)
        )


def _norms_of(tensors: Mapping[str, Tensor], is_c4: bool) -> tuple[HeadNorm, HeadNorm | None]:
    """Return the norms of the heads and of the pyramid, the latter if it differs."""

    def norm(present: bool) -> HeadNorm:
        return "BN" if present else "none"

    if is_c4:
        return norm(f"{STAGE_NORM}.weight" in tensors), None
    in_pyramid = norm(f"{PYRAMID_NORM}.weight" in tensors)
    if not any(map(_HEAD_CONV.fullmatch, tensors)):
        return in_pyramid, None
    in_heads = norm(any(map(_HEAD_NORM.fullmatch, tensors)))
    return in_heads, None if in_heads == in_pyramid else in_pyramid


def _check_anchors(tensors: Mapping[str, Tensor], anchors: Anchors, features: RegionMaps) -> None:
    logits = tensors.get(f"{OBJECTNESS}.weight")
    if logits is not None and len(logits) != anchors.num_per_position(features):
        ratios = ", ".join(f"{ratio:g}" for ratio in anchors.aspect_ratios)
        sizes = len(anchors.by_map(features)[0])
        of_sizes = f" and its sizes on the map {sizes}" if features == "C4" else ""
        raise UserError(
            f"the detector's tensors have {len(logits)} anchors per position, but its "
            f"aspect ratios are {len(anchors.aspect_ratios)}: {ratios}{of_sizes}"
        )


def _expected_tree(found: Description, mean: RGB, std: RGB, sampling: SamplingConfig) -> Tree:
    weights = weights_tree(found.arch, mean, std, found.model.trunk_norm)
    model = model_tree(found.model, sampling, weights["MODEL"], found.num_classes)
    return {"MODEL": model, "INPUT": weights["INPUT"]}


def _is_frozen(trunk: Mapping[str, Tensor], stage: str) -> bool:
    return not any(name.startswith(f"{stage}.") and name.endswith(BATCH_COUNT) for name in trunk)


def _same(value: Any, expected: Any) -> bool:
    """Compare as in YAML: detectron2 writes some tuples as lists, and 256 boxes as [256, …]."""
    if isinstance(value, list | tuple) and isinstance(expected, list | tuple):
        return list(map(_plain, value)) == list(map(_plain, expected))
    return bool(value == expected)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, list | tuple) else value
