"""Lay out anchors on the maps that boxes are proposed from, without rounding.

On a five-level pyramid there is one size per level (Lin et al. 2017, feature pyramids, Section
4.1), on a single map there are all sizes (Ren et al. 2015, Faster R-CNN, Section 3.1.1). The grid
starts at pixel 0, as in detectron2.
"""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from detection.recipe.architecture import Anchors, RegionMaps

STRIDES: Mapping[RegionMaps, tuple[int, ...]] = {"FPN": (4, 8, 16, 32, 64), "C4": (16,)}
"""Pixels of the image per step on each map that boxes are proposed from."""
_MOST_KEPT = 16  # layouts; of a pyramid each takes up to 4.5 MB at 800 x 1333 pixels
_Key = tuple[tuple[tuple[int, int], ...], torch.device]


def cell_anchors(size: float, aspect_ratios: Sequence[float]) -> Tensor:
    """Return anchors of one size centred on the origin, (A, 4) as x0, y0, x1, y1.

    Args:
        size: Square root of their area, in pixels.
        aspect_ratios: Height / width of each of the A anchors.
    """
    widths = [size / math.sqrt(ratio) for ratio in aspect_ratios]
    sides = [(width, ratio * width) for width, ratio in zip(widths, aspect_ratios, strict=True)]
    return torch.tensor([[-w / 2, -h / 2, w / 2, h / 2] for w, h in sides])


class AnchorLayout(nn.Module):
    """Lays anchors out over the maps of an image, where the maps are.

    In training it keeps the layouts of the latest few sizes; images come in few. While a detector
    is traced, sizes are symbols, which nothing may outlive.

    Args:
        anchors: Sizes and shapes.
        features: The maps.
    """

    cells: Tensor
    """Each map's A anchors around the origin, (L, A, 4): size by size, shape by shape."""

    def __init__(self, anchors: Anchors, features: RegionMaps) -> None:
        super().__init__()
        cells = [
            torch.cat([cell_anchors(size, anchors.aspect_ratios) for size in sizes])
            for sizes in anchors.by_map(features)
        ]
        self._strides = STRIDES[features]
        # Not part of the state: they are in a checkpoint's metadata.
        self.register_buffer("cells", torch.stack(cells), persistent=False)
        self._kept: dict[_Key, list[Tensor]] = {}

    def forward(self, shapes: Sequence[tuple[int, int]]) -> list[Tensor]:
        """Return every map's anchors.

        Args:
            shapes: Height and width of each map, by rising stride.

        Returns:
            Per map (H * W * A, 4): row by row, cell by cell within a row, anchor by anchor in a
            cell. The same tensors may be returned again.
        """
        if not self.training:
            return self._laid_out(shapes)
        key = (tuple(shapes), self.cells.device)
        if key not in self._kept:
            if len(self._kept) == _MOST_KEPT:
                del self._kept[next(iter(self._kept))]
            self._kept[key] = self._laid_out(shapes)
        return self._kept[key]

    def _laid_out(self, shapes: Sequence[tuple[int, int]]) -> list[Tensor]:
        levels = []
        device = self.cells.device
        for (height, width), stride, cells in zip(shapes, self._strides, self.cells, strict=True):
            rows = torch.arange(height, device=device, dtype=torch.float32) * stride
            columns = torch.arange(width, device=device, dtype=torch.float32) * stride
            y, x = (grid.reshape(-1) for grid in torch.meshgrid(rows, columns, indexing="ij"))
            shifts = torch.stack([x, y, x, y], dim=1)
            levels.append((shifts[:, None] + cells[None]).reshape(-1, 4))
        return levels
