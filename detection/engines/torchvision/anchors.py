"""Anchors of a five-level pyramid: one size a level, three shapes, not rounded to whole pixels.

Lin et al. 2017 (feature pyramids), Section 4.1; the grid starts at pixel 0, as in detectron2.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

STRIDES = (4, 8, 16, 32, 64)
SIZES_PIXELS = (32, 64, 128, 256, 512)
"""Square root of the area, on each level."""
ASPECT_RATIOS = (0.5, 1.0, 2.0)
"""Height / width."""


def cell_anchors(size: float) -> Tensor:
    """Return the anchors of one size around the origin, (3, 4) as x0, y0, x1, y1."""
    widths = [size / math.sqrt(ratio) for ratio in ASPECT_RATIOS]
    sides = [(width, ratio * width) for width, ratio in zip(widths, ASPECT_RATIOS, strict=True)]
    return torch.tensor([[-w / 2, -h / 2, w / 2, h / 2] for w, h in sides])


def pyramid_anchors(shapes: Sequence[tuple[int, int]], device: torch.device) -> list[Tensor]:
    """Return every level's anchors.

    Args:
        shapes: Height and width of each level's map, from stride 4 to 64.
        device: Where to put them.

    Returns:
        Per level (H * W * 3, 4): row by row, in a row cell by cell, in a cell by rising ratio.
    """
    anchors = []
    for (height, width), stride, size in zip(shapes, STRIDES, SIZES_PIXELS, strict=True):
        rows = torch.arange(height, device=device, dtype=torch.float32) * stride
        columns = torch.arange(width, device=device, dtype=torch.float32) * stride
        y, x = (grid.reshape(-1) for grid in torch.meshgrid(rows, columns, indexing="ij"))
        shifts = torch.stack([x, y, x, y], dim=1)
        cells = cell_anchors(size).to(device)
        anchors.append((shifts[:, None] + cells[None]).reshape(-1, 4))
    return anchors
