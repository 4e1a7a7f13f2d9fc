"""Names of ResNet trunk tensors: torchvision's and detectron2's, as data.

    torchvision                      detectron2, under backbone.bottom_up.
    conv1.weight                     stem.conv1.weight
    bn1.weight                       stem.conv1.norm.weight
    layer1.0.conv2.weight            res2.0.conv2.weight
    layer1.0.bn2.running_mean        res2.0.conv2.norm.running_mean
    layer2.0.downsample.0.weight     res3.0.shortcut.weight
    layer2.0.downsample.1.bias       res3.0.shortcut.norm.bias

The tables hold for basic blocks (ResNet-18, -34) and bottlenecks (-50, -101); the inverse is
read from the same tables.
"""

from collections.abc import Mapping
from dataclasses import dataclass

DETECTRON2_PREFIX = "backbone.bottom_up."

_CONV_LEAVES = frozenset({"weight"})
NORM_LEAVES = frozenset({"weight", "bias", "running_mean", "running_var", "num_batches_tracked"})


@dataclass(frozen=True)
class _Tables:
    """Module names of one layout → those of the other."""

    stem: Mapping[str, str]
    stages: Mapping[str, str]
    block: Mapping[str, str]

    def inverse(self) -> "_Tables":
        return _Tables(_invert(self.stem), _invert(self.stages), _invert(self.block))


def _invert(table: Mapping[str, str]) -> dict[str, str]:
    return {new: old for old, new in table.items()}


_TO_DETECTRON2 = _Tables(
    stem={"conv1": "stem.conv1", "bn1": "stem.conv1.norm"},
    stages={"layer1": "res2", "layer2": "res3", "layer3": "res4", "layer4": "res5"},
    block={
        "conv1": "conv1",
        "bn1": "conv1.norm",
        "conv2": "conv2",
        "bn2": "conv2.norm",
        "conv3": "conv3",
        "bn3": "conv3.norm",
        "downsample.0": "shortcut",
        "downsample.1": "shortcut.norm",
    },
)
_TO_TORCHVISION = _TO_DETECTRON2.inverse()
_NORM_MODULES = frozenset({"bn1", "bn2", "bn3", "downsample.1"})


def to_detectron2(name: str) -> str:
    """Return detectron2's full name of a torchvision ResNet tensor.

    Raises:
        ValueError: If ``name`` is not a tensor of a ResNet without classifier.
    """
    module, _, leaf = name.rpartition(".")
    renamed = _rename(module, _TO_DETECTRON2)
    if renamed is None or leaf not in _leaves(module):
        raise ValueError(f"'{name}' is not the name of a tensor in a torchvision ResNet trunk")
    return f"{DETECTRON2_PREFIX}{renamed}.{leaf}"


def to_torchvision(name: str) -> str:
    """Return torchvision's name of a detectron2 ResNet trunk tensor; undoes ``to_detectron2``.

    Raises:
        ValueError: If ``name`` is not a tensor under ``backbone.bottom_up.``.
    """
    module, _, leaf = name.removeprefix(DETECTRON2_PREFIX).rpartition(".")
    renamed = _rename(module, _TO_TORCHVISION)
    if not name.startswith(DETECTRON2_PREFIX) or renamed is None or leaf not in _leaves(renamed):
        raise ValueError(f"'{name}' is not the full name of a tensor in a detectron2 ResNet trunk")
    return f"{renamed}.{leaf}"


def _rename(module: str, tables: _Tables) -> str | None:
    if module in tables.stem:
        return tables.stem[module]
    stage, _, rest = module.partition(".")
    block, _, part = rest.partition(".")
    if stage not in tables.stages or part not in tables.block or not _is_index(block):
        return None
    return f"{tables.stages[stage]}.{block}.{tables.block[part]}"


def _is_index(text: str) -> bool:
    return text.isascii() and text.isdecimal() and str(int(text)) == text


def _leaves(torchvision_module: str) -> frozenset[str]:
    """Return which tensors a module of torchvision's has: a convolution's or a norm's."""
    parts = torchvision_module.split(".")
    part = ".".join(parts[2:]) if len(parts) > 1 else torchvision_module
    return NORM_LEAVES if part in _NORM_MODULES else _CONV_LEAVES
