"""Define box operations that can be traced for any image size.

While the detector is traced (``detection.export``), sizes are symbolic; a decision by Python itself
would be fixed to the one traced image.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Suppress = Callable[[Tensor, Tensor, Tensor, float], Tensor]
"""Boxes (N, 4), scores (N,), groups (N,) and an IoU to the indices of the boxes kept, best first:
``torchvision.ops.batched_nms``, or an exported graph's replacement of it."""


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
