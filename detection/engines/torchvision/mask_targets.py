"""Draw the mask head's targets: each object's outline inside its region.

A polygon is moved into the region's frame, scaled to the mask's size and rasterised by
pycocotools, so that no resolution is lost. A bitmap is cropped by aligned RoIAlign.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from pycocotools import mask as mask_codec
from torch import Tensor
from torchvision.ops import roi_align

from detection.feeding.samples import Bitmap, Polygons

# A thinner region is drawn as if it had this side; its target is empty or full either way.
_MIN_SIDE_PIXELS = np.float32(0.1)


def mask_targets(outlines: Sequence[Polygons | Bitmap], boxes: Tensor, side: int) -> Tensor:
    """Draw each object inside its region.

    Args:
        outlines: One per region, in pixels of the image.
        boxes: The regions, x0, y0, x1, y1, (N, 4).
        side: Height and width of the result.

    Returns:
        True inside the object, (N, side, side), on the boxes' device.
    """
    drawn = [
        _cropped(outline, box, side)
        if isinstance(outline, Bitmap)
        else _rasterised(outline, box, side)
        for outline, box in zip(outlines, boxes.detach().cpu().numpy(), strict=True)
    ]
    if not drawn:
        return torch.zeros(0, side, side, dtype=torch.bool, device=boxes.device)
    return torch.stack(drawn).to(boxes.device)


def _rasterised(polygons: Polygons, box: NDArray[np.float32], side: int) -> Tensor:
    scale = side / np.maximum(box[2:] - box[:2], _MIN_SIDE_PIXELS)
    moved = [((polygon - box[:2]) * scale).ravel().tolist() for polygon in polygons]
    code = mask_codec.merge(mask_codec.frPyObjects(moved, side, side))
    return torch.from_numpy(mask_codec.decode(code)).bool()


def _cropped(bitmap: Bitmap, box: NDArray[np.float32], side: int) -> Tensor:
    corner = np.array([bitmap.left, bitmap.top] * 2, dtype=np.float32)
    region = torch.from_numpy(box - corner)[None]
    pixels = torch.from_numpy(bitmap.pixels)[None, None].float()
    cut: Tensor = roi_align(pixels, [region], side, 1.0, 0, True)
    return cut[0, 0] >= 0.5
