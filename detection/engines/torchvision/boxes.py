"""Define box operations that can be traced for any image size.

While the detector is traced (``detection.export``), sizes are symbolic; a decision by Python itself
would be fixed to the one traced image.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torchvision.ops import batched_nms

Suppress = Callable[[Tensor, Tensor, Tensor, float, int], Tensor]
"""``suppress``, or an exported graph's replacement of it."""


def suppress(boxes: Tensor, scores: Tensor, groups: Tensor, iou: float, limit: int) -> Tensor:
    """Suppress boxes that overlap a better one of their group.

    Args:
        boxes: x0, y0, x1, y1 in pixels, (N, 4).
        scores: (N,).
        groups: Whole numbers, (N,).
        iou: Boxes that overlap by more are suppressed.
        limit: Largest number of boxes to keep.

    Returns:
        Indices of the boxes kept, best first.
    """
    kept: Tensor = batched_nms(boxes, scores, groups, iou)
    return kept[:limit]


def clip_to_image(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Clip corners to an image.

    Args:
        boxes: x0, y0, x1, y1 in pixels, (…, 4).
        size: Height and width of the image.
    """
    height, width = size
    x, y = boxes[..., 0::2].clamp(0, width), boxes[..., 1::2].clamp(0, height)
    return torch.stack([x, y], dim=-1).flatten(-2)


def at_most(limit: int, count: int) -> int:
    """Return the smaller number, or a symbol for it while tracing."""
    smaller: Any
    if torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]
        smaller = torch.minimum(torch.tensor(limit), torch.as_tensor(count))
    else:
        smaller = torch.sym_min(limit, count)
    return smaller  # type: ignore[no-any-return]
