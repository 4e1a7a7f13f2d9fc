"""Heads that share the pretrained last stage, applied to each region of a single map: C4.

Ren et al. 2015 (Faster R-CNN) with He et al. 2016 (ResNet), Appendix A; masks as in He et al. 2017
(Mask R-CNN), Figure 4 (left). MoCo (He et al. 2020, Section 4.2) adds a norm after the stage.
"""

from collections.abc import Sequence

from torch import Tensor, nn
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
from torchvision.models.detection.mask_rcnn import MaskRCNNPredictor

from detection.engines.torchvision.pooling import pool_map
from detection.engines.torchvision.regions import Known, RegionHeads
from detection.recipe.architecture import SamplingConfig

RESOLUTION = 14
MASK_WIDTH = 256


class StageHeads(RegionHeads):
    """The last stage with a predictor of boxes and, unless the model has no masks, one of masks.

    Args:
        stage: res5, which halves the resolution.
        norm: After the stage; None for none.
        channels: Width of the stage.
        num_classes: Without the background.
        has_masks: Whether masks are predicted.
        sampling: Numbers of regions trained on and of detections kept.
    """

    MASK_SIDE = RESOLUTION  # the stage halves it, and the predictor doubles it

    def __init__(
        self,
        stage: nn.Module,
        norm: nn.Module | None,
        channels: int,
        num_classes: int,
        has_masks: bool,
        sampling: SamplingConfig,
    ) -> None:
        super().__init__(has_masks, sampling)
        self.layer4 = stage
        self.layer4_norm = norm
        self.box_predictor = FastRCNNPredictor(channels, num_classes + 1)
        if has_masks:
            self.mask_predictor = MaskRCNNPredictor(channels, MASK_WIDTH, num_classes + 1)

    def box_features(self, maps: Sequence[Tensor], boxes: Sequence[Tensor]) -> Tensor:
        """Crop the boxes and apply the stage, (R, C, 7, 7)."""
        (single,) = maps
        features: Tensor = self.layer4(pool_map(single, boxes, RESOLUTION))
        return features if self.layer4_norm is None else self.layer4_norm(features)

    def box_vectors(self, features: Tensor) -> Tensor:
        """Average over the region, (R, C)."""
        return features.mean(dim=(2, 3))

    def mask_features(
        self, maps: Sequence[Tensor], boxes: Sequence[Tensor], known: Known | None
    ) -> Tensor:
        """Return the features that classes are predicted from, too."""
        if known is None:
            return self.box_features(maps, boxes)
        features, rows = known
        return features[rows]
