"""Map names of ResNet trunk tensors between torchvision and the detectors of either engine.

    torchvision                      detectron2, under backbone.bottom_up.
    conv1.weight                     stem.conv1.weight
    bn1.weight                       stem.conv1.norm.weight
    layer1.0.conv2.weight            res2.0.conv2.weight
    layer1.0.bn2.running_mean        res2.0.conv2.norm.running_mean
    layer2.0.downsample.0.weight     res3.0.shortcut.weight
    layer2.0.downsample.1.bias       res3.0.shortcut.norm.bias

In a detector on C4 the trunk is under ``backbone.``, its last stage, res5, under ``roi_heads.``.
The torchvision engine keeps torchvision's names under ``backbone.body.``; on C4 the last stage is
``roi_heads.layer4``. The tables cover basic blocks (ResNet-18, -34) and bottlenecks (-50, -101).
"""

from collections.abc import Mapping
from typing import TypeVar

from detection.recipe.architecture import RegionMaps
from rsa_pretrain.weights.foreign.names import C4_DETECTOR, DETECTRON2, TORCHVISION, NameTable

BATCH_COUNT = "num_batches_tracked"
"""Last part of the name of a norm's tensor that FrozenBN lacks."""
BOTTOM_UP = "backbone.bottom_up"
"""Module of the trunk in detectron2's detectors with a pyramid."""
BODY = "backbone.body"
"""Module of the trunk in the torchvision engine's detectors."""

IN_DETECTRON2: Mapping[RegionMaps, NameTable] = {
    "FPN": DETECTRON2.below(f"{BOTTOM_UP}."),
    "C4": C4_DETECTOR,
}
IN_ENGINE: Mapping[RegionMaps, NameTable] = {
    "FPN": TORCHVISION.below(f"{BODY}."),
    "C4": TORCHVISION.below(f"{BODY}.", "roi_heads.layer4"),
}
_C4_STAGES = ("roi_heads.res5.", "roi_heads.layer4.")
_Tensor = TypeVar("_Tensor")


def features_of(names: Mapping[str, object]) -> RegionMaps:
    """Return the kind of a detector, or of weights for one, by the names of its tensors."""
    return "C4" if any(name.startswith(_C4_STAGES) for name in names) else "FPN"


def to_detectron2(name: str, features: RegionMaps = "FPN") -> str:
    """Return detectron2's full name of a torchvision ResNet tensor.

    Raises:
        ValueError: If ``name`` is not a tensor of a ResNet without classifier.
    """
    return IN_DETECTRON2[features].from_torchvision(name)


def trunk_tensors(detector: Mapping[str, _Tensor]) -> dict[str, _Tensor]:
    """Select the trunk's tensors from the torchvision engine's detector, by torchvision's names."""
    names = IN_ENGINE[features_of(detector)]
    renamed = {name: names.to_torchvision(name) for name in detector}
    return {ours: detector[name] for name, ours in renamed.items() if ours is not None}
