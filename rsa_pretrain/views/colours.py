"""Apply the aggressive augmentation t_a to a batch: jitter, grayscale and blur, drawn per image.

Pixels are float32 in [0, 1] throughout, in planes (3, N, H, W) so that a channel is contiguous.
The operations are those of ``torchvision.transforms.v2.functional`` on float images. Which images
an operation acts on is planned from draws on the CPU, so the CPU never waits for a GPU.
"""

import functools

import torch
from torch import Tensor

from rsa_pretrain.plumbing.device import to_device
from rsa_pretrain.views.blur import gaussian_blur
from rsa_pretrain.views.draws import JITTER_OPERATIONS, ColourDraws

# ITU-R 601-2 luma, rounded as in torchvision.
LUMA = (0.2989, 0.587, 0.114)

_CONTRAST = JITTER_OPERATIONS.index("contrast")
_SATURATION = JITTER_OPERATIONS.index("saturation")
_HUE = JITTER_OPERATIONS.index("hue")


def coloured(weak: Tensor, draws: ColourDraws, blur_radius: int) -> Tensor:
    """Apply t_a to images, and return a new tensor.

    Images to jitter are gathered, those with the most operations before the hue first, so that
    each operation acts in place on a contiguous part of them.

    Args:
        weak: Planes of the weak views, (3, N, S, S).
        draws: Draws of the N images.
        blur_radius: Pixels on either side that the blur's kernel covers.
    """
    device = weak.device
    num_jittered = int(draws.jitter.sum())
    place_of_hue = (draws.order == _HUE).int().argmax(dim=1)
    order = torch.argsort(torch.where(draws.jitter, -place_of_hue, 1))
    x = weak.index_select(1, to_device(order, device))
    jitter_(x[:, :num_jittered], draws.rows(order[:num_jittered]))
    x = x.index_select(1, to_device(torch.argsort(order), device))
    gray = draws.grayscale.nonzero()[:, 0]
    if len(gray):
        rows = to_device(gray, device)
        x.index_copy_(1, rows, luma(x.index_select(1, rows)).expand(3, -1, -1, -1))
    blurred = draws.blur_sigma.nonzero()[:, 0]
    if len(blurred):
        rows = to_device(blurred, device)
        sigma = to_device(draws.blur_sigma[blurred], device)
        x.index_copy_(1, rows, gaussian_blur(x.index_select(1, rows), sigma, blur_radius))
    return x


def jitter_(x: Tensor, draws: ColourDraws) -> None:
    """Jitter the colours of images in place, each in its own order.

    Args:
        x: Planes of n images, (3, n, H, W), those with most operations before the hue first.
        draws: Draws of these images.
    """
    if x.numel() == 0:
        return
    is_hue = draws.order == _HUE
    blends = draws.order[~is_hue].view(-1, 3)
    factors = torch.stack([draws.brightness, draws.contrast, draws.saturation], dim=1)
    table = [factors.gather(1, blends), blends == _CONTRAST, blends == _SATURATION]
    moves = to_device(torch.stack(table).permute(2, 0, 1), x.device)[..., None, None]
    # How many images have a first, second and third blend before their hue.
    nums_before = (~is_hue).cumprod(dim=1).sum(dim=0)[:3].tolist()
    for move, num in zip(moves, nums_before, strict=True):
        blend_(x[:, :num], move[:, :num])
    adjust_hue_(x, to_device(draws.hue, x.device))
    for move, num in zip(moves, nums_before, strict=True):
        blend_(x[:, num:], move[:, num:])


def luma(x: Tensor) -> Tensor:
    """Return the brightness of RGB planes (3, N, H, W) as (N, H, W)."""
    return (x[0] * LUMA[0]).add_(x[1], alpha=LUMA[1]).add_(x[2], alpha=LUMA[2])


def blend_(x: Tensor, move: Tensor) -> None:
    """Adjust brightness, contrast or saturation of images in place.

    All three move pixels away from a reference, or towards it, by a factor: from black, from the
    image's mean luma, or from the pixel's own luma.

    Args:
        x: Planes of n images, (3, n, H, W) in [0, 1].
        move: Factor, 1 for none; 1 where the mean luma is the reference, else 0; 1 where the
            pixel's luma is, else 0; (3, n, 1, 1).
    """
    if x.numel() == 0:
        return
    factor, contrast, saturation = move
    gray = luma(x)
    mean = gray.mean(dim=(1, 2), keepdim=True)
    reference = gray.mul_(saturation).add_(mean.mul_(contrast))
    torch.lerp(reference, x, factor, out=x).clamp_(0, 1)


def adjust_hue_(x: Tensor, shift: Tensor) -> None:
    """Rotate the hue of images in place, keeping each pixel's value and saturation.

    With ĉ = (c - min) / (max - min) for the channels c of a pixel, its hue in sixths of the colour
    circle is 1 - r̂ + ĝ + b̂ where g >= b, and minus that elsewhere. At hue y in [0, 6) the
    channels are r̂ = |y - 3| - 1, ĝ = 2 - |y - 2| and b̂ = 2 - |y - 4|, clamped to [0, 1]. Both are
    HSV's definition without its case distinctions.

    Args:
        x: Planes of n images, (3, n, H, W) in [0, 1].
        shift: In turns, (n,) in [-0.5, 0.5].
    """
    red, green, blue = x
    low = x.amin(dim=0)
    spread = x.amax(dim=0).sub_(low)
    # Where a pixel is gray its hue does not matter, as long as it is a number.
    hue = (green + blue).sub_(red).sub_(low).div_(spread.clamp_min(1e-12)).add_(1)
    hue = hue.copysign_(green - blue).div_(6).add_(shift[:, None, None] + 1).frac_().mul_(6)
    centre, sign, peak = _hexagon(x.device)
    weights = (hue - centre).abs_().mul_(sign).add_(peak).clamp_(0, 1)
    torch.addcmul(low, spread, weights, out=x)


@functools.cache
def _hexagon(device: torch.device) -> Tensor:
    """Return centre, sign and peak of each channel as a function of hue, (3, 3, 1, 1, 1)."""
    table = [[3.0, 2, 4], [1, -1, -1], [-1, 2, 2]]
    return torch.tensor(table, device=device)[..., None, None, None]
