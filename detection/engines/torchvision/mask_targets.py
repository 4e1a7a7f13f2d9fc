"""Draw the mask head's targets: each object's outline inside its region.

A polygon is moved into the region's frame, scaled to the mask's size and rasterised, so that no
resolution is lost. A bitmap is cropped by aligned RoIAlign, on the CPU.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.ops import roi_align

from detection.engines.torchvision.polygons import rasterise_in_boxes
from detection.feeding.samples import Bitmap, Polygons


def mask_targets(outlines: Sequence[Polygons | Bitmap], boxes: Tensor, side: int) -> Tensor:
    """Draw each object inside its region; only bitmaps wait for the boxes' device.

    Args:
        outlines: One per region, in pixels of the image.
        boxes: The regions, x0, y0, x1, y1, (N, 4).
        side: Height and width of the result.

    Returns:
        True inside the object, (N, side, side), on the boxes' device.
    """
    boxes = boxes.detach()
    bitmaps = {row: part for row, part in enumerate(outlines) if isinstance(part, Bitmap)}
    polygons = [() if isinstance(outline, Bitmap) else outline for outline in outlines]
    targets = rasterise_in_boxes(polygons, boxes, side)
    if bitmaps:
        rows = torch.tensor(list(bitmaps), device=boxes.device)
        regions = boxes[rows].cpu().numpy()
        cropped = map(_cropped, bitmaps.values(), regions, [side] * len(bitmaps))
        targets[rows] = torch.stack(list(cropped)).to(boxes.device)
    return targets


def _cropped(bitmap: Bitmap, box: NDArray[np.float32], side: int) -> Tensor:
    corner = np.array([bitmap.left, bitmap.top] * 2, dtype=np.float32)
    region = torch.from_numpy(box - corner)[None]
    pixels = torch.from_numpy(bitmap.pixels)[None, None].float()
    cut: Tensor = roi_align(pixels, [region], side, 1.0, 0, True)
    return cut[0, 0] >= 0.5
