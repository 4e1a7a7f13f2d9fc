"""Rasterise polygons as pycocotools does, bit for bit, but all at once and on any device.

pycocotools (``rleFrPoly``) rounds corners to a grid of 5 points per pixel side and walks along each
edge, point by point on its longer axis, rounding the other coordinate. Where the walk steps over
the middle of a pixel column, from grid column 5c + 2 to 5c + 3 or back, the column changes between
outside and inside, at the upper of the two points. Only these steps matter, and each is a function
of its edge alone.

Every operation is in float64 and rounded once, as in pycocotools. A fused multiply-add would round
differently, and so would a division by a number, which CUDA turns into a multiplication.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from detection.feeding.samples import Polygons
from rsa_pretrain.plumbing.device import to_device

_POINTS = 5
# A thinner region is drawn as if it had this side; its target is empty or full either way.
_MIN_SIDE_PIXELS = 0.1


def rasterise_in_boxes(objects: Sequence[Polygons], boxes: Tensor, side: int) -> Tensor:
    """Draw each object inside its box, without waiting for the device.

    Args:
        objects: One per box, in the boxes' pixels; without a part it is empty.
        boxes: x0, y0, x1, y1, (N, 4), float32.
        side: Height and width of the result.

    Returns:
        True inside any part of the object, (N, side, side), on the boxes' device.
    """
    arrays = [torch.from_numpy(array) for array in _flattened(objects)]
    edges, part, owner = (to_device(array, boxes.device) for array in arrays)
    column, row, edge = _changes(_on_grid(edges, boxes, owner[part], side), side)
    places = ((part[edge] * (side + 1) + row) * side + column).flatten()
    changes = torch.zeros(len(owner) * (side + 1) * side, dtype=torch.int32, device=boxes.device)
    changes.scatter_add_(0, places, torch.ones_like(places, dtype=torch.int32))
    by_row = changes.view(len(owner), side + 1, side).cumsum(1, dtype=torch.int32)
    parts_inside = torch.zeros(len(boxes), side, side, dtype=torch.int32, device=boxes.device)
    return parts_inside.index_add_(0, owner, by_row[:, :side] & 1) > 0


def _flattened(
    objects: Sequence[Polygons],
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """Return both ends of every edge, (2, 2, E), x first, its part, and each part's object."""
    parts = [part for polygons in objects for part in polygons]
    lengths = np.array([len(part) for part in parts], dtype=np.int64)
    stops = lengths.cumsum()
    following = np.arange(1, lengths.sum() + 1)
    following[stops - 1] = stops - lengths
    corners = np.concatenate([np.zeros((0, 2)), *parts]).T
    return (
        np.stack([corners, corners[:, following]]),
        np.arange(len(parts)).repeat(lengths),
        np.arange(len(objects)).repeat([len(polygons) for polygons in objects]),
    )


def _on_grid(edges: Tensor, boxes: Tensor, box_of_edge: Tensor, side: int) -> Tensor:
    """Move edges, (2, 2, E), into their boxes' frames and round their ends to grid points."""
    sides = (boxes[:, 2:] - boxes[:, :2]).clamp(min=_MIN_SIDE_PIXELS)
    scales = torch.full_like(sides, side) / sides
    origin, scale = (values.double()[box_of_edge].T for values in (boxes[:, :2], scales))
    return ((edges - origin) * scale * _POINTS + 0.5).trunc()


def _changes(edges: Tensor, side: int) -> tuple[Tensor, Tensor, Tensor]:
    """Find where edges change columns between outside and inside.

    Args:
        edges: Both ends in grid points, (2, 2, E), x first.
        side: Number of columns and rows.

    Returns:
        Columns, the first rows after the change and edges, of shapes that broadcast to one; row
        ``side`` changes nothing.
    """
    start, end = edges
    width, height = (end - start).abs()
    flat = width >= height
    backwards = torch.where(flat, start[0] > end[0], start[1] > end[1])
    x, y = torch.where(backwards, end, start)
    last_x, last_y = torch.where(backwards, start, end)
    slope = torch.where(flat, last_y - y, last_x - x) / torch.where(flat, width, height)
    middle = torch.arange(side, device=edges.device).double() * _POINTS + _POINTS // 2
    low, high = torch.minimum(x, last_x)[:, None], torch.maximum(x, last_x)[:, None]
    crosses = (low <= middle) & (middle < high)
    edge, column = _pairs(crosses)
    before, x, y, slope = middle[column], x[edge], y[edge], slope[edge]
    # Of a flat edge: the points before and after the middle.
    left = before - x
    points = [(y + slope * steps + 0.5).trunc() for steps in (left, left + 1)]
    # Of a steep edge: the last point before the step over the middle. The quotient tells it up to
    # one point either way; the walk itself decides.
    guess = ((left + 0.5) / slope).ceil() - 1
    before_step = [
        ((x + slope * steps + 0.5) >= before + 1) != (slope > 0) for steps in (guess, guess + 1)
    ]
    last_point = y + guess - 1 + before_step[0].double() + before_step[1].double()
    upper = torch.where(flat[edge], torch.minimum(*points), last_point)
    # ceil((upper + 0.5) / 5 - 0.5), always well between two integers, so rounding cannot matter.
    row = ((upper + 2.5) / _POINTS).floor().clamp(0, side)
    return column, torch.where(crosses[edge, column], row, side).long(), edge


def _pairs(crosses: Tensor) -> tuple[Tensor, Tensor]:
    """Return edges and columns to look at, as indices that broadcast.

    On a CPU those that cross. A GPU takes all: selecting would wait for their number.
    """
    if crosses.device.type == "cpu":
        edge, column = torch.where(crosses)
        return edge, column
    edges, columns = (torch.arange(length, device=crosses.device) for length in crosses.shape)
    return edges[:, None], columns
