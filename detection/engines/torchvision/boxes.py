"""Arithmetic of boxes that holds for any image size in an exported graph, too.

While the detector is traced (``detection.export``) sizes are unknowns, and what Python itself
decides about them would be fixed at those of the one image that is traced.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Suppress = Callable[[Tensor, Tensor, Tensor, float], Tensor]
"""Boxes (N, 4), scores (N,), groups (N,) and an IoU to the indices of the boxes kept, best first:
``torchvision.ops.batched_nms``, or what an exported graph holds in its place."""


def clip_to_image(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Move corners outside an image to its edge.

    Args:
        boxes: x0, y0, x1, y1 in pixels, (…, 4).
        size: Height and width of the image.
    """
    height, width = size
    x, y = boxes[..., 0::2].clamp(0, width), boxes[..., 1::2].clamp(0, height)
    return torch.stack([x, y], dim=-1).flatten(-2)


def at_most(limit: int, count: int) -> int:
    """Return the smaller number, or the unknown that will be the smaller."""
    smaller: Any
    if torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]
        smaller = torch.minimum(torch.tensor(limit), torch.as_tensor(count))
    else:
        smaller = torch.sym_min(limit, count)
    return smaller  # type: ignore[no-any-return]
