"""Lay out anchors on a five-level pyramid: one size per level, some shapes, no rounding.

Lin et al. 2017 (feature pyramids), Section 4.1; the grid starts at pixel 0, as in detectron2.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from detection.recipe import Anchors

STRIDES = (4, 8, 16, 32, 64)


def cell_anchors(size: float, aspect_ratios: Sequence[float]) -> Tensor:
    """Return anchors of one size centred on the origin, (A, 4) as x0, y0, x1, y1.

    Args:
        size: Square root of their area, in pixels.
        aspect_ratios: Height / width of each of the A anchors.
    """
    widths = [size / math.sqrt(ratio) for ratio in aspect_ratios]
    sides = [(width, ratio * width) for width, ratio in zip(widths, aspect_ratios, strict=True)]
    return torch.tensor([[-w / 2, -h / 2, w / 2, h / 2] for w, h in sides])


def pyramid_anchors(
    anchors: Anchors, shapes: Sequence[tuple[int, int]], device: torch.device
) -> list[Tensor]:
    """Return every level's anchors.

    Args:
        anchors: Sizes of the levels, and A shapes.
        shapes: Height and width of each level's map, from stride 4 to 64.
        device: Device of the result.

    Returns:
        Per level (H * W * A, 4): row by row, cell by cell within a row, ratio by ratio in a cell.
    """
    levels = []
    for (height, width), stride, size in zip(shapes, STRIDES, anchors.sizes_pixels, strict=True):
        rows = torch.arange(height, device=device, dtype=torch.float32) * stride
        columns = torch.arange(width, device=device, dtype=torch.float32) * stride
        y, x = (grid.reshape(-1) for grid in torch.meshgrid(rows, columns, indexing="ij"))
        shifts = torch.stack([x, y, x, y], dim=1)
        cells = cell_anchors(size, anchors.aspect_ratios).to(device)
        levels.append((shifts[:, None] + cells[None]).reshape(-1, 4))
    return levels
