"""Register C4 heads with one more norm after res5, as MoCo has them.

He et al. 2020 (Momentum contrast), Section 4.2. The name is that of MoCo's release, so that its
configs and those of ``rsa-detect export-config`` build the same detector.
"""

from typing import Any

from detectron2.config import CfgNode
from detectron2.layers import get_norm
from detectron2.modeling.roi_heads import ROI_HEADS_REGISTRY, Res5ROIHeads
from torch import nn


@ROI_HEADS_REGISTRY.register()
class Res5ROIHeadsExtraNorm(Res5ROIHeads):  # type: ignore[misc]
    """detectron2's C4 heads whose res5 ends in a norm of the trunk's kind."""

    @classmethod
    def _build_res5_block(cls, cfg: CfgNode) -> tuple[nn.Sequential, int]:
        built: Any = super()._build_res5_block(cfg)
        stage, channels = built
        stage.add_module("norm", get_norm(cfg.MODEL.RESNETS.NORM, channels))
        return stage, channels
