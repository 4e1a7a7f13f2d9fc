"""Translate names of ResNet tensors between layouts: tables as data, inverses derived from them.

torchvision                   numbered children        transformers
conv1.weight                  0.weight                 embedder.embedder.convolution.weight
bn1.weight                    1.weight                 embedder.embedder.normalization.weight
layer1.0.conv2.weight         4.0.conv2.weight         encoder.stages.0.layers.0.layer.1.conv…
layer2.0.downsample.1.bias    5.0.downsample.1.bias    encoder.stages.1.layers.0.shortcut.nor…

"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

_CONVOLUTION_LEAVES = ("weight",)
NORM_LEAVES = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
_STEM = ("conv1", "bn1")
_STAGES = ("layer1", "layer2", "layer3", "layer4")
_BLOCK = ("conv1", "bn1", "conv2", "bn2", "conv3", "bn3", "downsample.0", "downsample.1")
_INDEX = re.compile("0|[1-9][0-9]{0,2}")
_NORMS = frozenset({"bn1", "bn2", "bn3", "downsample.1"})


@dataclass(frozen=True)
class NameTable:
    """Module names of one layout by torchvision's."""

    stem: Mapping[str, str]
    stages: Mapping[str, str]
    block: Mapping[str, str]

    @cached_property
    def modules(self) -> frozenset[str]:
        """First parts of the names: the modules that make up stem and stages."""
        places = [*self.stem.values(), *self.stages.values()]
        return frozenset(place.partition(".")[0] for place in places)

    def below(self, prefix: str, last_stage: str | None = None) -> "NameTable":
        """Return the table of a larger model: every name after a prefix.

        Args:
            prefix: Of stem and stages.
            last_stage: Full name of the last stage's module, if it is elsewhere.
        """
        stem = {ours: prefix + theirs for ours, theirs in self.stem.items()}
        stages = {ours: prefix + theirs for ours, theirs in self.stages.items()}
        if last_stage is not None:
            stages[_STAGES[-1]] = last_stage
        return NameTable(stem, stages, self.block)

    def to_torchvision(self, name: str) -> str | None:
        """Return torchvision's name for a tensor; None if the layout has no such tensor."""
        module, _, leaf = name.rpartition(".")
        for ours, theirs in self.stem.items():
            if module == theirs:
                return _join(ours, ours, leaf)
        for stage, theirs in self.stages.items():
            if module.startswith(f"{theirs}."):
                index, _, rest = module.removeprefix(f"{theirs}.").partition(".")
                part = next((ours for ours, there in self.block.items() if there == rest), None)
                if part is not None and _is_index(index):
                    return _join(f"{stage}.{index}.{part}", part, leaf)
        return None

    def from_torchvision(self, name: str) -> str:
        """Return this layout's name for a torchvision tensor; inverts ``to_torchvision``.

        Raises:
            ValueError: If ``name`` is not a tensor of a ResNet without classifier.
        """
        module, _, leaf = name.rpartition(".")
        stage, _, rest = module.partition(".")
        index, _, part = rest.partition(".")
        if leaf in _leaves(part or module):
            if module in self.stem:
                return f"{self.stem[module]}.{leaf}"
            if stage in self.stages and part in self.block and _is_index(index):
                return f"{self.stages[stage]}.{index}.{self.block[part]}.{leaf}"
        raise ValueError(f"'{name}' is not the name of a tensor in a torchvision ResNet trunk")


def _join(module: str, part: str, leaf: str) -> str | None:
    return f"{module}.{leaf}" if leaf in _leaves(part) else None


def _leaves(part: str) -> tuple[str, ...]:
    return NORM_LEAVES if part in _NORMS else _CONVOLUTION_LEAVES


def _is_index(text: str) -> bool:
    return _INDEX.fullmatch(text) is not None


def _same(names: tuple[str, ...]) -> dict[str, str]:
    return dict(zip(names, names, strict=True))


TORCHVISION = NameTable(stem=_same(_STEM), stages=_same(_STAGES), block=_same(_BLOCK))

# nn.Sequential(*list(resnet.children())[:-1]): relu is 2, maxpool 3, avgpool 8.
NUMBERED = NameTable(
    stem={"conv1": "0", "bn1": "1"},
    stages={"layer1": "4", "layer2": "5", "layer3": "6", "layer4": "7"},
    block=_same(_BLOCK),
)

TRANSFORMERS = NameTable(
    stem={
        "conv1": "embedder.embedder.convolution",
        "bn1": "embedder.embedder.normalization",
    },
    stages={f"layer{number + 1}": f"encoder.stages.{number}.layers" for number in range(4)},
    block={
        "conv1": "layer.0.convolution",
        "bn1": "layer.0.normalization",
        "conv2": "layer.1.convolution",
        "bn2": "layer.1.normalization",
        "conv3": "layer.2.convolution",
        "bn3": "layer.2.normalization",
        "downsample.0": "shortcut.convolution",
        "downsample.1": "shortcut.normalization",
    },
)

DETECTRON2 = NameTable(
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
# In a detector on C4, the last stage is the regions' head.
C4_DETECTOR = DETECTRON2.below("backbone.", "roi_heads.res5")
