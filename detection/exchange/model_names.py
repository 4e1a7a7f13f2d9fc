"""Map the tensor names of a whole Mask R-CNN between the torchvision engine and detectron2.

    torchvision engine                    detectron2
    backbone.body.layer1.0.bn2.bias       backbone.bottom_up.res2.0.conv2.norm.bias
    backbone.fpn.inner_blocks.0.0.weight  backbone.fpn_lateral2.weight
    backbone.fpn.layer_blocks.3.1.bias    backbone.fpn_output5.norm.bias
    rpn.head.cls_logits.weight            proposal_generator.rpn_head.objectness_logits.weight
    roi_heads.box_head.0.1.weight         roi_heads.box_head.conv1.norm.weight
    roi_heads.box_head.5.weight           roi_heads.box_head.fc1.weight
    roi_heads.mask_predictor.conv5_mask   roi_heads.mask_head.deconv
    roi_heads.layer4_norm.weight (C4)     roi_heads.res5.norm.weight

``trunk_names`` has the trunk's tensors. torchvision numbers a head's layers consecutively, so its
numbers depend on the depth; the inverse is derived from the same table.
"""

from dataclasses import dataclass

from detection.exchange.trunk_names import IN_DETECTRON2, IN_ENGINE
from detection.recipe.architecture import RegionMaps
from rsa_pretrain.weights.foreign.names import NORM_LEAVES

OBJECTNESS = "rpn.head.cls_logits"
CLASS_SCORE = "roi_heads.box_predictor.cls_score"
BOX_OFFSETS = "roi_heads.box_predictor.bbox_pred"
MASK_LOGITS = "roi_heads.mask_predictor.mask_fcn_logits"
STAGE_NORM = "roi_heads.layer4_norm"
"""The norm that MoCo adds after the last stage on C4."""
PYRAMID_NORM = "backbone.fpn.inner_blocks.0.1"
"""The first norm of a pyramid that has norms."""

_SAME_EVERYWHERE = {
    "rpn.head.conv.0.0": "proposal_generator.rpn_head.conv",
    OBJECTNESS: "proposal_generator.rpn_head.objectness_logits",
    "rpn.head.bbox_pred": "proposal_generator.rpn_head.anchor_deltas",
    CLASS_SCORE: "roi_heads.box_predictor.cls_score",
    BOX_OFFSETS: "roi_heads.box_predictor.bbox_pred",
    "roi_heads.mask_predictor.conv5_mask": "roi_heads.mask_head.deconv",
    MASK_LOGITS: "roi_heads.mask_head.predictor",
}
_PYRAMID_LEVELS = 4
_LAYER_LEAVES = frozenset({"weight", "bias"})


@dataclass(frozen=True)
class HeadLayers:
    """Maps and layer counts of a detector, on which its tensors' names depend."""

    features: RegionMaps
    box_convs: int
    box_fcs: int
    mask_convs: int


class ModelKeyMap:
    """Renames tensors of one architecture in both directions; unknown names raise.

    Args:
        heads: Names depend on it.
    """

    def __init__(self, heads: HeadLayers) -> None:
        self._features = heads.features
        layers = _layers(heads)
        norms = _norms(heads)
        self._to_detectron2 = {
            f"{ours}.{leaf}": f"{theirs}.{leaf}"
            for table, leaves in ((layers, _LAYER_LEAVES), (norms, NORM_LEAVES))
            for ours, theirs in table.items()
            for leaf in leaves
        }
        self._to_torchvision = {new: old for old, new in self._to_detectron2.items()}

    def to_detectron2(self, name: str) -> str:
        """Return detectron2's full name.

        Raises:
            ValueError: If ``name`` is not a tensor of this architecture in the torchvision engine.
        """
        trunk_name = IN_ENGINE[self._features].to_torchvision(name)
        if trunk_name is not None:
            return IN_DETECTRON2[self._features].from_torchvision(trunk_name)
        if name not in self._to_detectron2:
            raise ValueError(f"'{name}' is not a tensor of the torchvision engine's Mask R-CNN")
        return self._to_detectron2[name]

    def to_torchvision(self, name: str) -> str:
        """Return the torchvision engine's name; undoes ``to_detectron2``.

        Raises:
            ValueError: If ``name`` is not a tensor of this architecture in detectron2.
        """
        trunk_name = IN_DETECTRON2[self._features].to_torchvision(name)
        if trunk_name is not None:
            return IN_ENGINE[self._features].from_torchvision(trunk_name)
        if name not in self._to_torchvision:
            raise ValueError(f"'{name}' is not a tensor of detectron2's Mask R-CNN")
        return self._to_torchvision[name]


def _layers(heads: HeadLayers) -> dict[str, str]:
    """Return convolutions and linear layers outside the trunk."""
    table = dict(_SAME_EVERYWHERE)
    if heads.features == "C4":
        return table
    for level in range(_PYRAMID_LEVELS):
        table[f"backbone.fpn.inner_blocks.{level}.0"] = f"backbone.fpn_lateral{level + 2}"
        table[f"backbone.fpn.layer_blocks.{level}.0"] = f"backbone.fpn_output{level + 2}"
    for number in range(heads.box_convs):
        table[f"roi_heads.box_head.{number}.0"] = f"roi_heads.box_head.conv{number + 1}"
    for number in range(heads.box_fcs):
        # A flatten layer follows the convolutions, and a ReLU each linear layer.
        position = heads.box_convs + 1 + 2 * number
        table[f"roi_heads.box_head.{position}"] = f"roi_heads.box_head.fc{number + 1}"
    for number in range(heads.mask_convs):
        table[f"roi_heads.mask_head.{number}.0"] = f"roi_heads.mask_head.mask_fcn{number + 1}"
    return table


def _norms(heads: HeadLayers) -> dict[str, str]:
    """Return the norms outside the trunk: their convolution's siblings here, its children there."""
    if heads.features == "C4":
        return {STAGE_NORM: "roi_heads.res5.norm"}
    return {
        f"{ours.removesuffix('.0')}.1": f"{theirs}.norm"
        for ours, theirs in _layers(heads).items()
        if ours.endswith(".0") and not ours.startswith("rpn.")
    }
