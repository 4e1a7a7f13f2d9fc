"""Pool box features by aligned RoIAlign: from one map, or from the pyramid level of its size."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchvision.ops import roi_align

from detection.engines.torchvision.anchors import STRIDES

NUM_LEVELS = 4
_PYRAMID_STRIDES = STRIDES["FPN"][:NUM_LEVELS]
(_MAP_STRIDE,) = STRIDES["C4"]
_CANONICAL_LEVEL = 2  # index of the level with stride 16
_CANONICAL_SIDE_PIXELS = 224


def box_levels(boxes: Tensor) -> Tensor:
    """Return the index of each box's level, (N,).

    Lin et al. 2017 (feature pyramids), Eq. (1): a box of 224 x 224 pixels is read from stride 16,
    one of half that side from stride 8.

    Args:
        boxes: x0, y0, x1, y1 in pixels, (N, 4).
    """
    sides = ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).sqrt()
    # The addend avoids the logarithm of zero for a box without area.
    levels = torch.floor(_CANONICAL_LEVEL + torch.log2(sides / _CANONICAL_SIDE_PIXELS + 1e-8))
    return levels.clamp(0, NUM_LEVELS - 1).long()


class PyramidPooler(nn.Module):
    """Crops boxes from a pyramid, with as many samples per bin as it covers pixels of the map.

    Args:
        resolution: Side of the result.
    """

    def __init__(self, resolution: int) -> None:
        super().__init__()
        self.resolution = resolution

    def forward(self, maps: Sequence[Tensor], boxes: Sequence[Tensor]) -> Tensor:
        """Pool every image's boxes.

        Args:
            maps: (N, C, H, W) of strides 4, 8, 16 and 32, float32 and contiguous: anything else
                would be copied for every pooler.
            boxes: Of each image, (R_i, 4) in pixels.

        Returns:
            (R, C, resolution, resolution) in the boxes' order, float32.
        """
        rois = _numbered(boxes)
        levels = box_levels(rois[:, 1:])
        chosen = [torch.where(levels == level)[0] for level in range(NUM_LEVELS)]
        cuts = [
            roi_align(features, rois[index], self.resolution, 1 / stride, 0, True)
            for features, index, stride in zip(maps, chosen, _PYRAMID_STRIDES, strict=True)
        ]
        # Ordered in one step: filling level by level would copy the gradient for each. Every row is
        # written, as each box has a level.
        pooled = rois.new_empty(rois.shape[0], maps[0].shape[1], self.resolution, self.resolution)
        return pooled.index_copy_(0, torch.cat(chosen), torch.cat(cuts))


def pool_map(features: Tensor, boxes: Sequence[Tensor], resolution: int) -> Tensor:
    """Crop every image's boxes from the single map of stride 16.

    Args:
        features: (N, C, H, W), float32 and contiguous.
        boxes: Of each image, (R_i, 4) in pixels.
        resolution: Side of the result.

    Returns:
        (R, C, resolution, resolution) in the boxes' order, float32; bins have as many samples as
        they cover pixels of the map.
    """
    cut: Tensor = roi_align(features, _numbered(boxes), resolution, 1 / _MAP_STRIDE, 0, True)
    return cut


def _numbered(boxes: Sequence[Tensor]) -> Tensor:
    """Join all boxes, (R, 5), each after its image's number."""
    image_of_box = [torch.full_like(part[:, :1], index) for index, part in enumerate(boxes)]
    return torch.cat([torch.cat(image_of_box), torch.cat(list(boxes))], dim=1)
