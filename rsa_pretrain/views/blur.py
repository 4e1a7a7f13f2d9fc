"""Gaussian blur of a batch, each image with its own sigma, as products with band matrices."""

import functools
import math

import torch
from torch import Tensor
from torch.nn.functional import one_hot

# Output pixels that one product computes along the blurred direction.
_STRIP = 32


def blur_radius(highest_sigma: float, size: int) -> int:
    """Return a blur's radius in pixels: three standard deviations, clipped to the image."""
    return min(math.ceil(3 * highest_sigma), size - 1)


def gaussian_blur(x: Tensor, sigma: Tensor, radius: int) -> Tensor:
    """Blur square images, repeating the outermost pixels beyond the border, as in Pillow.

    The matrix of a direction is zero more than ``radius`` pixels from its diagonal, so a strip of
    the output depends on little more than that strip of the image.

    Args:
        x: Planes of N images, float32 (3, N, S, S).
        sigma: Standard deviations in pixels, (N,).
        radius: Pixels on either side that the kernel covers, below S.

    Returns:
        A new tensor like ``x``.
    """
    size = x.shape[-1]
    matrices = blur_matrices(sigma.repeat(3), size, radius)
    planes = x.reshape(-1, size, size)
    narrow, result = torch.empty_like(planes), torch.empty_like(planes)
    strips = [
        (slice(start, start + _STRIP), slice(max(0, start - radius), start + _STRIP + radius))
        for start in range(0, size, _STRIP)
    ]
    for strip, near in strips:
        band = matrices[:, strip, near].transpose(1, 2)
        torch.bmm(planes[:, :, near], band, out=narrow[:, :, strip])
    for strip, near in strips:
        torch.bmm(matrices[:, strip, near], narrow[:, near], out=result[:, strip])
    return result.view_as(x)


def blur_matrices(sigma: Tensor, size: int, radius: int) -> Tensor:
    """Return the matrices that blur a column of ``size`` pixels, (N, size, size).

    Args:
        sigma: Standard deviations in pixels, (N,).
        size: Pixels.
        radius: Pixels on either side that the kernel covers, below ``size``.
    """
    offsets = torch.arange(-radius, radius + 1, device=sigma.device)
    kernels = torch.softmax(-0.5 * (offsets / sigma[:, None]) ** 2, dim=1)
    return (kernels @ _taps(size, radius, sigma.device)).view(-1, size, size)


@functools.cache
def _taps(size: int, radius: int, device: torch.device) -> Tensor:
    """Return 1 where a tap of the kernel meets a pixel, else 0, (taps, size * size)."""
    columns = torch.arange(size) + torch.arange(-radius, radius + 1)[:, None]
    return one_hot(columns.clamp(0, size - 1), size).float().flatten(1).to(device)
