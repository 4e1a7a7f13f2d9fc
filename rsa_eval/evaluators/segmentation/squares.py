"""Make squares of images and masks, as MaskContrast's code does with OpenCV.

Bicubic kernels there and in torch have a = -0.75 and no antialiasing, and masks take the nearest
place, so values differ by OpenCV's rounding alone.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from rsa_eval.evaluators.segmentation.settings import DenseProbeConfig
from rsa_pretrain.data.settings import Interpolation


@dataclass(frozen=True)
class MaskView:
    """A drawn view.

    Attributes:
        is_flipped: Exchange left and right, first.
        degrees: Then rotate about the centre,
        scale: and enlarge.
    """

    is_flipped: bool = False
    degrees: float = 0.0
    scale: float = 1.0

    @property
    def warps(self) -> bool:
        """Return whether pixels move other than by a flip."""
        return (self.degrees, self.scale) != (0.0, 1.0)


def draw_mask_view(probe: DenseProbeConfig) -> MaskView:
    """Draw a view from torch's generator: flip, angle and scale."""
    flip, angle, zoom = torch.rand(3).tolist()
    low, high = probe.scale
    return MaskView(
        is_flipped=flip < probe.flip_probability,
        degrees=(2 * angle - 1) * probe.rotation_degrees,
        scale=low + zoom * (high - low),
    )


def view_pair(
    pixels: Tensor, mask: Tensor, view: MaskView, interpolation: Interpolation, outside: int
) -> tuple[Tensor, Tensor]:
    """Apply a view to an image and to its mask, which keep their size.

    Args:
        pixels: uint8 (3, H, W).
        mask: Classes, uint8 (H, W).
        view: The view.
        interpolation: Of the image; the mask takes the nearest pixel.
        outside: Class outside the original, where the image is black.

    Returns:
        Image and mask.
    """
    if view.is_flipped:
        pixels, mask = pixels.flip(-1), mask.flip(-1)
    if not view.warps:
        return pixels, mask
    grid = _source_places(mask.shape[0], mask.shape[1], view)
    # What is sampled outside is 0.
    above_outside = _sampled(mask[None].float() - outside, grid, "nearest")[0]
    return (
        _rounded(_sampled(pixels, grid, interpolation)),
        (above_outside + outside).to(torch.uint8),
    )


def resized_pixels(pixels: Tensor, size: int, interpolation: Interpolation) -> Tensor:
    """Resize a whole image, uint8 (3, H, W), to a square, uint8 (3, S, S)."""
    if pixels.shape[1:] == (size, size):
        return pixels
    return _rounded(
        F.interpolate(pixels[None].float(), (size, size), mode=interpolation, align_corners=False)[
            0
        ]
    )


def resized_mask(mask: Tensor, height: int, width: int) -> Tensor:
    """Resize a mask, uint8 (H, W), by taking the place that the upper left corner falls into."""
    # torch's own nearest mode multiplies by a rounded ratio, and takes a neighbour at some sizes.
    rows, columns = (
        torch.arange(size, device=mask.device) * length // size
        for size, length in zip((height, width), mask.shape, strict=True)
    )
    return mask[rows[:, None], columns]


def _source_places(height: int, width: int, view: MaskView) -> Tensor:
    """Return where each pixel of the view lies in the image, (1, H, W, 2), for ``grid_sample``.

    The inverse of OpenCV's ``getRotationMatrix2D`` about (W / 2, H / 2), in which pixels have whole
    coordinates.
    """
    radians = math.radians(view.degrees)
    cosine, sine = math.cos(radians) / view.scale, math.sin(radians) / view.scale
    y, x = torch.meshgrid(
        torch.arange(height, dtype=torch.float64) - height / 2,
        torch.arange(width, dtype=torch.float64) - width / 2,
        indexing="ij",
    )
    source_x = cosine * x - sine * y + width / 2
    source_y = sine * x + cosine * y + height / 2
    places = torch.stack([(2 * source_x + 1) / width - 1, (2 * source_y + 1) / height - 1], dim=-1)
    return places[None].float()


def _sampled(channels: Tensor, grid: Tensor, mode: str) -> Tensor:
    return F.grid_sample(
        channels[None].float(), grid, mode=mode, padding_mode="zeros", align_corners=False
    )[0]


def _rounded(pixels: Tensor) -> Tensor:
    return pixels.round().clamp(0, 255).to(torch.uint8)
