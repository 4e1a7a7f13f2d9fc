"""Plan on the CPU how a device makes views, so that it can work without asking the CPU.

Which images an operation acts on, and in which order, is decided here from the draws. What is left
for the device depends on no value, only on the sizes of the plan's tensors and on its integers.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from rsa_pretrain.views.draws import JITTER_OPERATIONS, ColourDraws, CropDraws, ViewDraws

_CONTRAST = JITTER_OPERATIONS.index("contrast")
_SATURATION = JITTER_OPERATIONS.index("saturation")
_HUE = JITTER_OPERATIONS.index("hue")


class ColourPlan(NamedTuple):
    """Plan of t_a for N images, n of which are jittered.

    Attributes:
        order: The images, first those to jitter and of these first the ones with the most
            operations before the hue, so that an operation acts on consecutive images; int64 (N,).
        back: The inverse of that order, int64 (N,).
        num_jittered: n.
        nums_before_hue: How many images have a first, second and third blend before their hue.
        blends: For each of an image's three blends its factor, 1 if the reference is the mean
            luma, and 1 if it is the pixel's luma, else 0; float32 (3, 3, n).
        hue: Shifts in turns, float32 (n,).
        gray: Images that lose their colour, int64.
        blurred: Images to blur, int64.
        blur_sigma: Their standard deviations in pixels, float32.
    """

    order: Tensor
    back: Tensor
    num_jittered: int
    nums_before_hue: list[int]
    blends: Tensor
    hue: Tensor
    gray: Tensor
    blurred: Tensor
    blur_sigma: Tensor


class PartPlan(NamedTuple):
    """Plan of the views of consecutive images.

    Attributes:
        rows: The images.
        crops: By prime, ``resize_table`` or ``flipped_rows`` of the crops.
        colours: By prime, if there is an aggressive view.
    """

    rows: slice
    crops: dict[str, Tensor]
    colours: dict[str, ColourPlan]


def plan_views(
    draws: ViewDraws, num_together: int, plan_crops: Callable[[CropDraws], Tensor]
) -> list[PartPlan]:
    """Plan the views of a batch.

    Args:
        draws: Their parameters.
        num_together: Images whose views are made together.
        plan_crops: ``resize_table`` for whole images, ``flipped_rows`` for crops.
    """
    parts = []
    for start in range(0, len(draws), num_together):
        rows = slice(start, start + num_together)
        part = draws.rows(rows)
        crops = {prime: plan_crops(crop) for prime, crop in part.crops.items()}
        colours = {prime: plan_colours(colour) for prime, colour in part.colours.items()}
        parts.append(PartPlan(rows, crops, colours))
    return parts


def resize_table(crops: CropDraws) -> Tensor:
    """Return start, length and flip of each crop's rows, then columns, float32 (3, 2 N, 1)."""
    start = torch.cat([crops.top, crops.left])
    length = torch.cat([crops.height, crops.width])
    flip = torch.cat([torch.zeros_like(crops.flip), crops.flip])
    return torch.stack([start, length, flip]).float()[..., None]


def flipped_rows(crops: CropDraws) -> Tensor:
    """Return which images are mirrored, int64."""
    return crops.flip.nonzero()[:, 0]


def plan_colours(draws: ColourDraws) -> ColourPlan:
    """Plan t_a."""
    num_jittered = int(draws.jitter.sum())
    place_of_hue = (draws.order == _HUE).int().argmax(dim=1)
    order = torch.argsort(torch.where(draws.jitter, -place_of_hue, 1))
    jittered = draws.rows(order[:num_jittered])
    is_hue = jittered.order == _HUE
    blends = jittered.order[~is_hue].view(-1, 3)
    factors = torch.stack([jittered.brightness, jittered.contrast, jittered.saturation], dim=1)
    table = [factors.gather(1, blends), blends == _CONTRAST, blends == _SATURATION]
    blurred = draws.blur_sigma.nonzero()[:, 0]
    return ColourPlan(
        order=order,
        back=torch.argsort(order),
        num_jittered=num_jittered,
        nums_before_hue=(~is_hue).cumprod(dim=1).sum(dim=0)[:3].tolist(),
        blends=torch.stack(table).permute(2, 0, 1),
        hue=jittered.hue,
        gray=draws.grayscale.nonzero()[:, 0],
        blurred=blurred,
        blur_sigma=draws.blur_sigma[blurred],
    )
