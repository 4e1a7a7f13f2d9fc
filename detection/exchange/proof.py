"""Prove a trunk's conversion between torchvision's names and detectron2's.

Names and shapes are compared with lists that do not come from the key map. Where detectron2 is
installed, its own network, loaded by its own checkpointer, must compute torchvision's features.
"""

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from detection.exchange.config import weights_tree
from detection.exchange.trunk_names import features_of
from detection.exchange.trunk_shapes import enumerated_shapes, quoted_r50_shapes
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.weights.metadata import BackboneMetadata


@dataclass(frozen=True)
class TrunkProof:
    """Results of the comparisons."""

    num_used: int
    """Number of tensors, each used once."""
    dropped: dict[str, int]
    """Reason → number of dropped tensors."""
    shapes_source: str
    feature_differences: dict[str, float] | None
    """Largest difference per stage between the two libraries; None without detectron2."""

    def lines(self) -> list[str]:
        """Return the proof in words."""
        dropped = [f"dropped {count} tensors: {why}" for why, count in self.dropped.items()]
        return [
            f"used {self.num_used} tensors, each once",
            *(dropped or ["dropped nothing"]),
            f"names and shapes are those {self.shapes_source}",
            "the written file, read back, equals the input bitwise",
            self._features(),
        ]

    def _features(self) -> str:
        if self.feature_differences is None:
            return "detectron2 is not installed here, so its features were not compared"
        found = ", ".join(f"{name} {value:g}" for name, value in self.feature_differences.items())
        return (
            "detectron2's features against torchvision's, largest difference relative to each "
            f"stage's largest value: {found}"
        )


def prove_shapes(model: Mapping[str, Tensor], arch: str) -> str:
    """Compare names and shapes with the architecture's, and return the source of the latter.

    Raises:
        RuntimeError: If they differ.
    """
    features = features_of(model)
    if arch == "resnet50":
        expected, source = quoted_r50_shapes(features), "quoted from detectron2's ResNet-50"
    else:
        expected, source = enumerated_shapes(arch, features), f"listed from {arch}'s architecture"
    found = {name: tuple(tensor.shape) for name, tensor in model.items()}
    if found != expected:
        differing = sorted(dict(found.items() ^ expected.items()))
        raise RuntimeError(f"converted names or shapes are not those {source}: {differing}")
    return source


def prove_features(
    weights: Path, model: Mapping[str, Tensor], backbone: nn.Module, metadata: BackboneMetadata
) -> dict[str, float] | None:
    """Compare res2 … res5 of the two libraries, if detectron2 is installed.

    Args:
        weights: A file written by this toolkit.
        model: Its expected tensors, by full name.
        backbone: torchvision's network with the same weights.
        metadata: Its architecture and pixel statistics.

    Raises:
        UserError: If detectron2 is installed but broken.
        RuntimeError: If a tensor was not loaded, or features differ.
    """
    if importlib.util.find_spec("detectron2") is None:
        return None
    try:
        from detection.engines.detectron2.features import (
            MAX_FEATURE_DIFFERENCE,
            feature_differences,
        )
    except (ImportError, AttributeError) as error:
        raise UserError(
            f"detectron2 is installed but cannot be imported ({error}); repair or remove it"
        ) from None
    tree = weights_tree(metadata.arch, metadata.mean, metadata.std, norm="BN")
    differences = feature_differences(weights, tree, model, backbone)
    if max(differences.values()) > MAX_FEATURE_DIFFERENCE:
        raise RuntimeError(f"detectron2's features differ from torchvision's: {differences}")
    return differences
