"""Convert anchors to and from detectron2's keys."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from detection.recipe.architecture import (
    HEAD_LAYERS,
    PYRAMID_LEVELS,
    Anchors,
    ModelConfig,
    RegionMaps,
)
from rsa_pretrain.plumbing.config.files import flatten, parse_tree
from rsa_pretrain.plumbing.errors import UserError

SECTION = "MODEL.ANCHOR_GENERATOR"
SIZES, ASPECT_RATIOS = f"{SECTION}.SIZES", f"{SECTION}.ASPECT_RATIOS"


def anchor_tree(anchors: Anchors, features: RegionMaps) -> dict[str, Any]:
    """Return the keys below ``MODEL.ANCHOR_GENERATOR``."""
    return {
        "SIZES": [list(sizes) for sizes in anchors.by_map(features)],
        "ASPECT_RATIOS": [list(anchors.aspect_ratios)],
    }


def read_anchors(settings: Mapping[str, Any], path: Path, features: RegionMaps) -> Anchors:
    """Read a config's anchors.

    As in detectron2, a single list applies to every map; it may be bare or nested in a list.

    Args:
        settings: The config's keys, nested.
        path: Names the config in errors.
        features: The maps they are on.

    Raises:
        UserError: If a level has several sizes or its own shapes, which the engines here do not
            support, or the keys are missing or not anchors.
    """
    stated = flatten(dict(settings))
    num_maps = 1 if features == "C4" else PYRAMID_LEVELS
    sizes, ratios = (_by_level(stated.get(key), num_maps) for key in (SIZES, ASPECT_RATIOS))
    if features == "C4" and sizes is None:
        raise UserError(
            f"'{path}' has {SIZES} {stated.get(SIZES)!r}; expected the sizes on one map, such as "
            "[[32, 64, 128, 256, 512]]"
        )
    if sizes is None or (features == "FPN" and any(len(level) != 1 for level in sizes)):
        raise UserError(
            f"'{path}' has {SIZES} {stated.get(SIZES)!r}; expected one size for each of "
            f"{PYRAMID_LEVELS} levels, such as [[32], [64], [128], [256], [512]]"
        )
    if ratios is None or any(level != ratios[0] for level in ratios):
        raise UserError(
            f"'{path}' has {ASPECT_RATIOS} {stated.get(ASPECT_RATIOS)!r}; expected ratios that "
            "hold for every size, such as [[0.5, 1.0, 2.0]]"
        )
    tree = {
        "anchor_sizes_pixels": [size for level in sizes for size in level],
        "anchor_aspect_ratios": list(ratios[0]),
        **({"features": "C4", **dict.fromkeys(HEAD_LAYERS, 0)} if features == "C4" else {}),
    }
    return parse_tree(ModelConfig, tree, f"'{path}', {SECTION}").anchors


def _by_level(value: Any, num_maps: int) -> list[Sequence[float]] | None:
    """Return each level's numbers; None if they are not numbers or do not match the levels."""
    if not isinstance(value, list | tuple) or not value:
        return None
    levels = list(value) if isinstance(value[0], list | tuple) else [value]
    if not all(isinstance(level, list | tuple) for level in levels):
        return None
    if any(type(number) not in (int, float) for level in levels for number in level):
        return None
    levels = [list(level) for level in levels]
    if len(levels) == 1:
        return levels * num_maps
    return levels if len(levels) == num_maps else None
