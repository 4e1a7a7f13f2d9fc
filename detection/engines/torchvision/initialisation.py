"""Initialise the heads as in detectron2 where torchvision's parts differ.

Already equal: the pyramid (Xavier uniform), the proposal network (standard deviation 0.01) and the
heads' convolutions (Kaiming normal, fan-out).
"""

import torch
from torch import nn

from detection.engines.torchvision.pyramid_heads import PyramidHeads
from detection.engines.torchvision.regions import RegionHeads

_CLASS_STD, _BOX_STD, _MASK_STD = 0.01, 0.001, 0.001


@torch.no_grad()
def initialise(heads: RegionHeads) -> None:
    """Re-initialise the heads' linear layers and the mask predictor, and set every bias to 0.

    The background's own offsets and mask, which detectron2 does not have and nothing reads, are 0
    and remain so: they receive no gradient.
    """
    if isinstance(heads, PyramidHeads):
        for layer in heads.box_head.modules():
            if isinstance(layer, nn.Linear):
                nn.init.kaiming_uniform_(layer.weight, a=1)
                nn.init.zeros_(layer.bias)
    predictors = [
        (heads.box_predictor.cls_score, _CLASS_STD),
        (heads.box_predictor.bbox_pred, _BOX_STD),
    ]
    if heads.has_mask_head:
        predictors.append((heads.mask_predictor.mask_fcn_logits, _MASK_STD))
    for layer, std in predictors:
        nn.init.normal_(layer.weight, std=std)
        nn.init.zeros_(layer.bias)
    heads.box_predictor.bbox_pred.weight[:4] = 0
    if heads.has_mask_head:
        nn.init.zeros_(heads.mask_predictor.conv5_mask.bias)
        heads.mask_predictor.mask_fcn_logits.weight[0] = 0
