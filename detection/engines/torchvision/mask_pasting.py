"""Paste predicted masks into their image."""

import math

import torch
from torch import Tensor
from torch.nn import functional

_THRESHOLD = 0.5


def paste_masks(masks: Tensor, boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Sample each mask bilinearly at the centres of the image's pixels.

    Mask and box share their corners; the mask's outermost cells lie half a cell inside, and beyond
    them values fall off to 0.

    Args:
        masks: Probabilities, (N, M, M).
        boxes: Their positions, x0, y0, x1, y1 in pixels, (N, 4).
        size: Height and width of the image.

    Returns:
        True where the mask is at least one half, (N, height, width); column-major in memory, like
        run-length codes, so that encoding copies nothing.
    """
    height, width = size
    rows, columns = (torch.arange(side, device=masks.device) + 0.5 for side in size)
    pasted = torch.zeros(len(masks), width, height, dtype=torch.bool, device=masks.device).mT
    for mask, box, canvas in zip(masks, boxes.tolist(), pasted, strict=True):
        x0, y0, x1, y1 = box
        # No pixel outside the box reaches the threshold; one more per side allows for rounding.
        left, right = max(math.floor(x0) - 1, 0), min(math.ceil(x1) + 1, width)
        top, bottom = max(math.floor(y0) - 1, 0), min(math.ceil(y1) + 1, height)
        # grid_sample's coordinates: -1 and 1 are the mask's outer edges.
        y, x = torch.meshgrid(
            (rows[top:bottom] - y0) / (y1 - y0) * 2 - 1,
            (columns[left:right] - x0) / (x1 - x0) * 2 - 1,
            indexing="ij",
        )
        grid = torch.stack([x, y], dim=2)[None]
        values = functional.grid_sample(mask[None, None], grid, align_corners=False)[0, 0]
        canvas[top:bottom, left:right] = values >= _THRESHOLD
    return pasted
