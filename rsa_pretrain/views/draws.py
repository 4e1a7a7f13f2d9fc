"""Draw the random parameters of a batch's views, which depend only on (seed, epoch, image)."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rsa_pretrain.views.settings import AggressiveConfig, Range, ViewsConfig, WeakConfig

Integers = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint64]
Uniforms = npt.NDArray[np.float64]

# The order in which torchvision numbers the operations of its colour jitter.
JITTER_OPERATIONS = ("brightness", "contrast", "saturation", "hue")

_CROP_TRIES = 10
# Count of random numbers that each part of a view takes from an image's stream, and a whole view.
_CROP_NUMBERS = slice(0, 4 * _CROP_TRIES + 1)
_COLOUR_NUMBERS = slice(_CROP_NUMBERS.stop, _CROP_NUMBERS.stop + 12)
_VIEW_NUMBERS = 64

# SplitMix64's step from one state to the next.
_GOLDEN_GAMMA = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class _Draws:
    """One CPU tensor per parameter, its first dimension the image."""

    def rows(self, rows: slice | Tensor) -> Self:
        """Return the parameters of some images."""
        return type(self)(*(getattr(self, field.name)[rows] for field in fields(self)))


@dataclass(frozen=True)
class CropDraws(_Draws):
    """Parameters of t_w for N images."""

    top: Tensor
    """First row of the crop, int64 (N,)."""
    left: Tensor
    """First column, int64 (N,)."""
    height: Tensor
    """Rows, int64 (N,)."""
    width: Tensor
    """Columns, int64 (N,)."""
    flip: Tensor
    """True if the view is mirrored, bool (N,)."""


@dataclass(frozen=True)
class ColourDraws(_Draws):
    """Parameters of t_a for N images."""

    jitter: Tensor
    """True if the colour jitter acts, bool (N,)."""
    order: Tensor
    """Its operations, first to last, as indices into JITTER_OPERATIONS; int64 (N, 4)."""
    brightness: Tensor
    """Factor, float32 (N,)."""
    contrast: Tensor
    """Factor, float32 (N,)."""
    saturation: Tensor
    """Factor, float32 (N,)."""
    hue: Tensor
    """Shift in turns of the colour circle, float32 (N,)."""
    grayscale: Tensor
    """True if the view loses its colour, bool (N,)."""
    blur_sigma: Tensor
    """Standard deviation of the blur in pixels, 0 for none, float32 (N,)."""


@dataclass(frozen=True)
class ViewDraws:
    """Parameters of a set of views, on the CPU."""

    crops: Mapping[str, CropDraws]
    """Crops by prime: "" for v_w and v_a, "'" for v_w' and v_a'."""
    colours: Mapping[str, ColourDraws]
    """Colour changes by prime, if the set has an aggressive view."""

    def __len__(self) -> int:
        return len(next(iter(self.crops.values())).top)

    def rows(self, rows: slice) -> "ViewDraws":
        """Return the parameters of some images."""
        return ViewDraws(
            {prime: crop.rows(rows) for prime, crop in self.crops.items()},
            {prime: colour.rows(rows) for prime, colour in self.colours.items()},
        )


def draw_views(
    names: tuple[str, ...],
    config: ViewsConfig,
    seed: int,
    epochs: Integers,
    images: Integers,
    heights: Integers,
    widths: Integers,
) -> ViewDraws:
    """Draw the parameters of a batch's views, distributed as torchvision's.

    An image's draws in an epoch do not depend on its batch, and a view's parameters are the same
    in every view set that has it.

    Args:
        names: The views of a set, a value of ``one_image.VIEW_NAMES``.
        config: Ranges and probabilities.
        seed: Seed of the run.
        epochs: Pass over the data set, (N,).
        images: Number of the image in the data set, (N,).
        heights: Rows of the image, (N,).
        widths: Columns of the image, (N,).
    """
    keys = _stream_keys(seed, epochs, images)
    crops, colours = {}, {}
    for first, prime in ((0, ""), (_VIEW_NUMBERS, "'")):
        if f"v_w{prime}" in names or f"v_a{prime}" in names:
            numbers = _uniforms(keys, first, _CROP_NUMBERS)
            crops[prime] = _draw_crops(numbers, config.weak, heights, widths)
        if f"v_a{prime}" in names:
            numbers = _uniforms(keys, first, _COLOUR_NUMBERS)
            colours[prime] = _draw_colours(numbers, config.aggressive)
    return ViewDraws(crops, colours)


def _draw_crops(u: Uniforms, config: WeakConfig, heights: Integers, widths: Integers) -> CropDraws:
    """Draw crops as ``RandomResizedCrop`` does: the first of ten tries that fits, or the centre.

    Args:
        u: Uniform numbers, (N, 41).
        config: Ranges of area and aspect ratio; probability of the flip.
        heights: Rows of the image, (N,).
        widths: Columns of the image, (N,).
    """
    tries = u[:, :-1].reshape(len(u), _CROP_TRIES, 4)
    area = (heights * widths)[:, None] * _between(config.crop_scale, tries[..., 0])
    ratio = np.exp(_between(tuple(np.log(config.crop_ratio)), tries[..., 1]))
    width = np.rint(np.sqrt(area * ratio)).astype(np.int64)
    height = np.rint(np.sqrt(area / ratio)).astype(np.int64)
    fits = (np.minimum(height, width) > 0) & (height <= heights[:, None])
    fits &= width <= widths[:, None]
    first = np.arange(len(u)), fits.argmax(axis=1)
    any_fits = fits.any(axis=1)

    centre_height, centre_width = _largest_crops(config.crop_ratio, heights, widths)
    height = np.where(any_fits, height[first], centre_height)
    width = np.where(any_fits, width[first], centre_width)
    top_share, left_share = tries[(*first, slice(2, 4))].T
    top = np.where(any_fits, _below(heights - height + 1, top_share), (heights - height) // 2)
    left = np.where(any_fits, _below(widths - width + 1, left_share), (widths - width) // 2)
    flip = u[:, -1] < config.flip_probability
    return CropDraws(*map(torch.from_numpy, (top, left, height, width, flip)))


def _largest_crops(ratio: Range, heights: Integers, widths: Integers) -> tuple[Integers, Integers]:
    """Return rows and columns of the largest part whose width over height is in ``ratio``.

    A single row or column of pixels may have no such part; one pixel is then used.
    """
    low, high = ratio
    height = np.minimum(heights, np.rint(widths / low).astype(np.int64).clip(1))
    width = np.minimum(widths, np.rint(heights * high).astype(np.int64).clip(1))
    return height, width


def _draw_colours(u: Uniforms, config: AggressiveConfig) -> ColourDraws:
    """Draw jitter, grayscale and blur from uniform numbers, (N, 12)."""
    jitter, *order = u[:, :5].T
    *strengths, hue, grayscale, blur, blur_sigma = u[:, 5:].T
    widths = (config.brightness, config.contrast, config.saturation)
    factors = [
        _between((max(0.0, 1 - width), 1 + width), strength)
        for width, strength in zip(widths, strengths, strict=True)
    ]
    factors.append(_between((-config.hue, config.hue), hue))
    sigma = _between(config.blur_sigma_pixels, blur_sigma)
    sigma[blur >= config.blur_probability] = 0
    return ColourDraws(
        jitter=torch.from_numpy(jitter < config.jitter_probability),
        # The ranks of four uniform numbers are a uniform permutation.
        order=torch.from_numpy(np.argsort(np.stack(order, axis=1), axis=1)),
        grayscale=torch.from_numpy(grayscale < config.grayscale_probability),
        blur_sigma=torch.from_numpy(sigma).float(),
        **dict(zip(JITTER_OPERATIONS, (torch.from_numpy(x).float() for x in factors), strict=True)),
    )


def _between(bounds: Range, u: Uniforms) -> Uniforms:
    low, high = bounds
    return low + (high - low) * u


def _below(limits: Integers, u: Uniforms) -> Integers:
    """Return integers in [0, limit)."""
    return (limits * u).astype(np.int64)


def _stream_keys(seed: int, epochs: Integers, images: Integers) -> Words:
    """Return the start of each image's stream of random numbers, uint64 (N,)."""
    keys: Words = _mix(np.full(len(images), seed % 2**64, dtype=np.uint64))
    for part in (epochs, images):
        keys = _mix(keys + part.astype(np.uint64))
    return keys


def _uniforms(keys: Words, first: int, numbers: slice) -> Uniforms:
    """Return numbers of each stream, uniform in [0, 1), counted from ``first``; (N, numbers)."""
    counters = np.arange(first + numbers.start, first + numbers.stop, dtype=np.uint64)
    steps: Words = counters * _GOLDEN_GAMMA
    bits = _mix(keys[:, None] + steps)
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mix(state: Words) -> Words:
    """Return SplitMix64's output for a state: Steele, Lea and Flood 2014, Fig. 16."""
    z = state + _GOLDEN_GAMMA
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
