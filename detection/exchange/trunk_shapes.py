"""List the tensors of a detectron2 ResNet trunk under FrozenBN: full names and shapes.

ResNet-50's are quoted from detectron2 (``detectron2_r50_keys.json``). The other depths are derived
here from block counts and widths, without the key map, so that they check it.
"""

import json
from importlib.resources import files

from detection.recipe.architecture import BASIC_BLOCK_ARCHS, RegionMaps

STAGE_BLOCKS = {
    "resnet18": (2, 2, 2, 2),
    "resnet34": (3, 4, 6, 3),
    "resnet50": (3, 4, 6, 3),
    "resnet101": (3, 4, 23, 3),
}
_ROOT = "backbone.bottom_up"
_BOTTLENECK_EXPANSION = 4
_STEM_CHANNELS = 64
_NORM_TENSORS = ("weight", "bias", "running_mean", "running_var")

Shapes = dict[str, tuple[int, ...]]


def quoted_r50_shapes(features: RegionMaps = "FPN") -> Shapes:
    """Return ResNet-50's tensors as read from detectron2 itself, in a detector with a pyramid.

    On C4 their places are others: the same names after other prefixes.
    """
    text = (
        files("detection.exchange").joinpath("detectron2_r50_keys.json").read_text(encoding="utf-8")
    )
    quoted = json.loads(text)["FrozenBN"].items()
    return {_placed(name, features): tuple(shape) for name, shape in quoted}


def enumerated_shapes(arch: str, features: RegionMaps = "FPN") -> Shapes:
    """List an architecture's tensors from its block counts and widths (He et al. 2016)."""
    return {_placed(name, features): shape for name, shape in _in_pyramid(arch).items()}


def _placed(name: str, features: RegionMaps) -> str:
    if features == "FPN":
        return name
    bare = name.removeprefix(f"{_ROOT}.")
    return f"roi_heads.{bare}" if bare.startswith("res5.") else f"backbone.{bare}"


def _in_pyramid(arch: str) -> Shapes:
    shapes: Shapes = {}
    _add_conv(shapes, f"{_ROOT}.stem.conv1", 3, _STEM_CHANNELS, 7)
    in_channels = _STEM_CHANNELS
    for stage, num_blocks in enumerate(STAGE_BLOCKS[arch]):
        width = 64 * 2**stage
        out_channels = width if arch in BASIC_BLOCK_ARCHS else width * _BOTTLENECK_EXPANSION
        for block in range(num_blocks):
            name = f"{_ROOT}.res{stage + 2}.{block}"
            if in_channels != out_channels:
                _add_conv(shapes, f"{name}.shortcut", in_channels, out_channels, 1)
            if arch in BASIC_BLOCK_ARCHS:
                _add_conv(shapes, f"{name}.conv1", in_channels, width, 3)
                _add_conv(shapes, f"{name}.conv2", width, out_channels, 3)
            else:
                _add_conv(shapes, f"{name}.conv1", in_channels, width, 1)
                _add_conv(shapes, f"{name}.conv2", width, width, 3)
                _add_conv(shapes, f"{name}.conv3", width, out_channels, 1)
            in_channels = out_channels
    return shapes


def _add_conv(shapes: Shapes, name: str, in_channels: int, out_channels: int, size: int) -> None:
    shapes[f"{name}.weight"] = (out_channels, in_channels, size, size)
    for tensor in _NORM_TENSORS:
        shapes[f"{name}.norm.{tensor}"] = (out_channels,)
