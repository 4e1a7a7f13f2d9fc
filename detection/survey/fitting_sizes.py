"""Fit input size and anchors to images and their objects' boxes."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from detection.coco.box_forms import box_of
from detection.coco.sets import TrainingImage
from detection.feeding.samples import resized
from detection.recipe.architecture import DEFAULT_ANCHORS, PYRAMID_LEVELS, Anchors
from detection.recipe.recipe import InputConfig

Lengths = NDArray[np.float64]

MATCHED_IOU = 0.5

# COCO's input size, to which larger images shrink, and the shares of it used in training.
_LARGEST_SHORT_SIDE, _LARGEST_SIDE = 800, 1333
_TRAINING_SHARES = (0.8, 0.84, 0.88, 0.92, 0.96, 1.0)
_SMALLEST_SHORT_SIDE = 128
_STEP_PIXELS = 8
# Long / short side up to which COCO's limit on the long side does not reduce the short one.
_USUAL_SHAPE = 5 / 3
# Four cells of the finest map, stride 4: smaller objects hardly stand out from their surroundings.
_SMALL_PIXELS = 16
_SMALL_SHARE = 0.1
_MOST_ENLARGED = 2.0

# The default sizes first; a candidate replaces an earlier one if it matches this share more.
_SMALLEST_ANCHORS = (32.0, 16.0, 8.0, 64.0)
_WORTH = 0.01
_LONG_SHARE = 0.05
_FLATTEST, _TALLEST = 1 / 8, 8.0


class InputFit(NamedTuple):
    """The size at which images enter the network."""

    settings: InputConfig
    why: str


def fit_input(images: Sequence[TrainingImage]) -> InputFit:
    """Choose the input size: the images' own up to COCO's, larger if objects are small."""
    sizes = np.array([(image.height, image.width) for image in images], dtype=np.float64)
    shorts, longs = sizes.min(axis=1), sizes.max(axis=1)
    shape = max(_USUAL_SHAPE, float(np.quantile(longs / shorts, 0.95)))
    middle = float(np.median(shorts))
    why = f"Half of the images have a short side of {half_of(shorts)} pixels"
    if middle > _LARGEST_SHORT_SIDE:
        why += "; they are shrunk to COCO's usual size."
    elif middle < _SMALLEST_SHORT_SIDE:
        why += "; they are enlarged, as a cell of the coarsest map is 64 pixels wide."
    else:
        why += "; they enter at about their own size."
    short_side = min(max(_in_steps(middle), _SMALLEST_SHORT_SIDE), _LARGEST_SHORT_SIDE)
    sides = sides_of(entered_boxes(images, _input(short_side, shape)))
    small = float(np.quantile(sides, _SMALL_SHARE))
    factor = min(_SMALL_PIXELS / small, _MOST_ENLARGED, _LARGEST_SHORT_SIDE / short_side)
    larger = _in_steps(short_side * factor)
    if larger > short_side:
        why += (
            f" One object in ten would then be smaller than {small:.3g} pixels, so all are "
            f"enlarged {larger / short_side:.2g} times."
        )
        short_side = larger
    return InputFit(_input(short_side, shape), why)


def fit_anchors(boxes: Lengths) -> Anchors:
    """Choose anchors: the default ones unless others match more objects.

    Args:
        boxes: Widths and heights at the input size, (K, 2).
    """
    shapes = _fit_shapes(boxes[:, 1] / boxes[:, 0])
    candidates = [
        Anchors(tuple(smallest * 2.0**level for level in range(PYRAMID_LEVELS)), shapes)
        for smallest in _SMALLEST_ANCHORS
    ]
    shares = [matched_share(boxes, candidate) for candidate in candidates]
    good = (number for number, share in enumerate(shares) if share >= max(shares) - _WORTH)
    return candidates[next(good)]


def matched_share(boxes: Lengths, anchors: Anchors) -> float:
    """Return the share of boxes whose best anchor, if centred, has an IoU of 0.5 or more.

    Args:
        boxes: Widths and heights, (K, 2).
        anchors: Sizes and shapes in the same pixels.
    """
    best = np.zeros(len(boxes))
    for size in anchors.sizes_pixels:
        for ratio in anchors.aspect_ratios:
            sides = np.array([size / math.sqrt(ratio), size * math.sqrt(ratio)])
            shared = np.minimum(boxes, sides).prod(axis=1)
            best = np.maximum(best, shared / (boxes.prod(axis=1) + size**2 - shared))
    return float((best >= MATCHED_IOU).mean())


def entered_boxes(images: Sequence[TrainingImage], settings: InputConfig) -> Lengths:
    """Return the width and height of every object at the test input size, (K, 2)."""
    boxes = []
    for image in images:
        size = (image.height, image.width)
        height, width = resized(size, settings.test_short_side_pixels, settings.max_side_pixels)
        for annotation in image.annotations:
            x0, y0, x1, y1 = box_of(annotation, size)
            boxes.append(((x1 - x0) * width / image.width, (y1 - y0) * height / image.height))
    return np.array(boxes, dtype=np.float64)


def sides_of(boxes: Lengths) -> Lengths:
    """Return the square root of each box's area, (K,), as anchors are measured."""
    sides: Lengths = np.sqrt(boxes.prod(axis=1))
    return sides


def half_of(lengths: Lengths) -> str:
    """Format the range of the middle half of the values."""
    low, high = np.quantile(lengths, (0.25, 0.75))
    return f"{low:.0f}" if round(low) == round(high) else f"{low:.0f} to {high:.0f}"


def _fit_shapes(ratios: Lengths) -> tuple[float, ...]:
    """Double the default range at either end while over one box in twenty lies beyond it.

    Args:
        ratios: Height / width of each box, (K,).
    """
    flat, tall = min(DEFAULT_ANCHORS.aspect_ratios), max(DEFAULT_ANCHORS.aspect_ratios)
    # Halfway to the next doubling, both shapes are equally close.
    while flat > _FLATTEST and (ratios < flat / math.sqrt(2)).mean() > _LONG_SHARE:
        flat /= 2
    while tall < _TALLEST and (ratios > tall * math.sqrt(2)).mean() > _LONG_SHARE:
        tall *= 2
    powers = range(round(math.log2(flat)), round(math.log2(tall)) + 1)
    return tuple(2.0**power for power in powers)


def _input(short_side: int, shape: float) -> InputConfig:
    return InputConfig(
        train_short_sides_pixels=tuple(
            sorted({_in_steps(share * short_side) for share in _TRAINING_SHARES})
        ),
        test_short_side_pixels=short_side,
        max_side_pixels=min(round(short_side * shape), _LARGEST_SIDE),
    )


def _in_steps(pixels: float) -> int:
    return max(1, round(pixels / _STEP_PIXELS)) * _STEP_PIXELS
