"""Apply the aggressive augmentation t_a to a batch: jitter, grayscale and blur, drawn per image.

Pixels are float32 in [0, 1] throughout, in planes (3, N, H, W) so that a channel is contiguous.
The operations are those of ``torchvision.transforms.v2.functional`` on float images.
"""

import functools

import torch
from torch import Tensor

from rsa_pretrain.views.blur import gaussian_blur
from rsa_pretrain.views.plan import ColourPlan

# ITU-R 601-2 luma, rounded as in torchvision.
LUMA = (0.2989, 0.587, 0.114)


def coloured(weak: Tensor, plan: ColourPlan, blur_radius: int) -> Tensor:
    """Apply t_a to images, and return a new tensor.

    Images to jitter are gathered, so that each operation acts in place on a contiguous part.

    Args:
        weak: Planes of the weak views, (3, N, S, S).
        plan: Plan of the N images, on their device.
        blur_radius: Pixels on either side that the blur's kernel covers.
    """
    x = weak.index_select(1, plan.order)
    if plan.num_jittered:
        jitter_(x[:, : plan.num_jittered], plan)
    x = x.index_select(1, plan.back)
    if len(plan.gray):
        gray = luma(x.index_select(1, plan.gray))
        x.index_copy_(1, plan.gray, gray.expand(3, -1, -1, -1))
    if len(plan.blurred):
        sharp = x.index_select(1, plan.blurred)
        x.index_copy_(1, plan.blurred, gaussian_blur(sharp, plan.blur_sigma, blur_radius))
    return x


def jitter_(x: Tensor, plan: ColourPlan) -> None:
    """Jitter the colours of images in place, each in its own order.

    Args:
        x: Planes of the n images to jitter, (3, n, H, W), in the plan's order.
        plan: Their plan, on their device.
    """
    blends = plan.blends[..., None, None]
    for blend, num in zip(blends, plan.nums_before_hue, strict=True):
        blend_(x[:, :num], blend[:, :num])
    adjust_hue_(x, plan.hue)
    for blend, num in zip(blends, plan.nums_before_hue, strict=True):
        blend_(x[:, num:], blend[:, num:])


def luma(x: Tensor) -> Tensor:
    """Return the brightness of RGB planes (3, N, H, W) as (N, H, W)."""
    return (x[0] * LUMA[0]).add_(x[1], alpha=LUMA[1]).add_(x[2], alpha=LUMA[2])


def blend_(x: Tensor, blend: Tensor) -> None:
    """Adjust brightness, contrast or saturation of images in place.

    All three move pixels away from a reference, or towards it, by a factor: from black, from the
    image's mean luma, or from the pixel's own luma.

    Args:
        x: Planes of n images, (3, n, H, W) in [0, 1].
        blend: Factor, 1 for none; 1 where the mean luma is the reference, else 0; 1 where the
            pixel's luma is, else 0; (3, n, 1, 1).
    """
    if x.numel() == 0:
        return
    factor, contrast, saturation = blend
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
