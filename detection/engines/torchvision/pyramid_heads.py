"""Heads of new layers over a feature pyramid.

Lin et al. 2017 (feature pyramids), Section 4.2; He et al. 2017 (Mask R-CNN), Figure 4 (right), with
separate features for boxes (7 x 7) and masks (14 x 14).
"""

from collections.abc import Sequence

from torch import Tensor, nn
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead, FastRCNNPredictor
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor

from detection.engines.torchvision.pooling import PyramidPooler
from detection.engines.torchvision.regions import Known, RegionHeads
from detection.recipe.architecture import ModelConfig, SamplingConfig

BOX_RESOLUTION, MASK_RESOLUTION = 7, 14
FC_WIDTH = 1024


class PyramidHeads(RegionHeads):
    """Box head over a pyramid, and mask head where the model has one.

    Args:
        channels: Width of the pyramid.
        num_classes: Without the background.
        model: Layer counts of the heads.
        sampling: Numbers of regions trained on and of detections kept.
        norm: After each convolution; None for none.
    """

    MASK_SIDE = 2 * MASK_RESOLUTION

    def __init__(
        self,
        channels: int,
        num_classes: int,
        model: ModelConfig,
        sampling: SamplingConfig,
        norm: type[nn.Module] | None,
    ) -> None:
        super().__init__(model.mask_head, sampling)
        box_shape = (channels, BOX_RESOLUTION, BOX_RESOLUTION)
        box_convs = [channels] * model.box_head_num_convs
        fcs = [FC_WIDTH] * model.box_head_num_fcs
        self.box_pool = PyramidPooler(BOX_RESOLUTION)
        self.box_head = FastRCNNConvFCHead(box_shape, box_convs, fcs, norm)
        self.box_predictor = FastRCNNPredictor(FC_WIDTH, num_classes + 1)
        if model.mask_head:
            mask_convs = [channels] * model.mask_head_num_convs
            self.mask_pool = PyramidPooler(MASK_RESOLUTION)
            self.mask_head = MaskRCNNHeads(channels, mask_convs, 1, norm)
            self.mask_predictor = MaskRCNNPredictor(channels, channels, num_classes + 1)

    def box_features(self, maps: Sequence[Tensor], boxes: Sequence[Tensor]) -> Tensor:
        """Crop the boxes, (R, C, 7, 7)."""
        cut: Tensor = self.box_pool(maps, boxes)
        return cut

    def box_vectors(self, features: Tensor) -> Tensor:
        """Apply the box head, (R, 1024)."""
        vectors: Tensor = self.box_head(features)
        return vectors

    def mask_features(
        self, maps: Sequence[Tensor], boxes: Sequence[Tensor], known: Known | None
    ) -> Tensor:
        """Crop the boxes at twice the resolution and apply the mask head, (R, C, 14, 14)."""
        features: Tensor = self.mask_head(self.mask_pool(maps, boxes))
        return features
