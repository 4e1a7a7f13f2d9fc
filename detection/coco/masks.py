"""Check and draw COCO's three forms of a mask: polygons, run-length codes as list or as text.

pycocotools trusts its input: a code of another size, or one whose runs end early, reads out of
bounds, and a corner far away crashes the process. Hence the checks here.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as mask_codec

Size = tuple[int, int]
"""Height and width, in pixels."""

# Larger than any image, and well within pycocotools' integers.
MAX_COORDINATE_PIXELS = 1e6
FEWEST_COORDINATES = 6
BOX_LENGTH = 4


def are_coordinates(values: Sequence[Any]) -> bool:
    """Return whether all are finite numbers that can be positions in or near an image."""
    if not set(map(type, values)) <= {int, float}:
        return False
    # A NaN is neither above nor below the limits, but makes the sum one.
    limit = MAX_COORDINATE_PIXELS
    return not values or (
        min(values) >= -limit and max(values) <= limit and not math.isnan(sum(values))
    )


def is_size(height: int, width: int) -> bool:
    """Return whether an image can have this size."""
    return 1 <= height <= MAX_COORDINATE_PIXELS and 1 <= width <= MAX_COORDINATE_PIXELS


def is_box(values: Any) -> bool:
    """Return whether a value is [x, y, width, height]."""
    return isinstance(values, list) and len(values) == BOX_LENGTH and are_coordinates(values)


def is_polygon(part: Any) -> bool:
    """Return whether a part of a segmentation is a polygon: x, y pairs, at least three."""
    return (
        isinstance(part, list)
        and len(part) >= FEWEST_COORDINATES
        and len(part) % 2 == 0
        and are_coordinates(part)
    )


def polygons(segmentation: Any) -> list[list[float]]:
    """Return the parts of a segmentation that are polygons."""
    if not isinstance(segmentation, list):
        return []
    return [part for part in segmentation if is_polygon(part)]


def has_mask(segmentation: Any) -> bool:
    """Return whether there is a polygon or a run-length code."""
    if isinstance(segmentation, list):
        return any(is_polygon(part) for part in segmentation)
    return _is_code(segmentation)


def has_sound_mask(segmentation: Any, size: Size) -> bool:
    """Return whether there is a mask that can be drawn."""
    return has_mask(segmentation) and code_fault(segmentation, size) is None


def code_fault(segmentation: Any, size: Size) -> str | None:
    """Describe the fault of a run-length code; None if it is valid or not a code.

    Args:
        segmentation: In any of the three forms.
        size: Height and width of the image.
    """
    if isinstance(segmentation, list) or not isinstance(segmentation, Mapping):
        return None
    if not _is_code(segmentation):
        return f"without {' and '.join(sorted({'counts', 'size'} - segmentation.keys()))}"
    if segmentation["size"] != list(size):
        return f"of size {segmentation['size']!r}, its image is {list(size)}"
    runs = run_lengths(segmentation["counts"])
    if runs is None:
        return "unreadable"
    covered = sum(runs)
    return None if covered == size[0] * size[1] else f"of {covered} pixels, not {size[0] * size[1]}"


def run_lengths(counts: Any) -> list[int] | None:
    """Return the lengths of the alternating runs of 0 and 1; None if they are unreadable.

    Args:
        counts: The lengths themselves, or COCO's text: six bits a character, of which the highest
            says that more follow; from the third on, differences to the length two before.
    """
    runs = _read_text(counts) if isinstance(counts, str | bytes) else counts
    if not isinstance(runs, list) or not all(type(run) is int and run >= 0 for run in runs):
        return None
    return runs


def _read_text(counts: str | bytes) -> list[int] | None:
    raw = counts.encode("utf-8") if isinstance(counts, str) else counts
    runs: list[int] = []
    value = shift = 0
    for byte in raw:
        digit = byte - 48
        if not 0 <= digit < 64:
            return None
        value |= (digit & 31) << shift
        shift += 5
        if digit & 32:
            continue
        if digit & 16:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    return runs if shift == 0 else None


def encode_mask(segmentation: Any, size: Size) -> dict[str, Any]:
    """Return a segmentation as one compressed run-length code.

    Args:
        segmentation: In any of the three forms; a run-length code must be valid.
        size: Height and width of the image.
    """
    code: dict[str, Any]
    if isinstance(segmentation, list):
        code = _encode_polygons(polygons(segmentation), size)
    elif isinstance(segmentation["counts"], list):
        code = mask_codec.frPyObjects(segmentation, *size)
    else:
        code = segmentation
    return code


def area_of(segmentation: Any, size: Size) -> float:
    """Return the area of a valid mask in pixels."""
    return float(mask_codec.area(encode_mask(segmentation, size)))


def box_around(segmentation: Any, size: Size) -> list[float]:
    """Return the box around a valid mask: the extent of its polygons, or of a code's pixels."""
    corners = [value for part in polygons(segmentation) for value in part]
    if not corners:
        box: list[float] = mask_codec.toBbox(encode_mask(segmentation, size)).tolist()
        return box
    x, y = corners[::2], corners[1::2]
    return [min(x), min(y), max(x) - min(x), max(y) - min(y)]


def render_mask(segmentation: Any, size: Size, new_size: Size) -> NDArray[np.uint8]:
    """Rasterise a segmentation at another image size.

    Args:
        segmentation: In any of the three forms; a run-length code must be valid.
        size: Of the annotated image.
        new_size: Of the mask; polygons are scaled before they are drawn.

    Returns:
        0 and 1, of ``new_size``.
    """
    height, width = new_size
    if isinstance(segmentation, list):
        scale = (width / size[1], height / size[0])
        scaled = [
            [value * scale[index % 2] for index, value in enumerate(polygon)]
            for polygon in polygons(segmentation)
        ]
        drawn: NDArray[np.uint8] = mask_codec.decode(_encode_polygons(scaled, new_size))
        return drawn
    full: NDArray[np.uint8] = mask_codec.decode(encode_mask(segmentation, size))
    rows = (np.arange(height) + 0.5) * size[0] / height
    columns = (np.arange(width) + 0.5) * size[1] / width
    resampled: NDArray[np.uint8] = full[rows.astype(int)][:, columns.astype(int)]
    return resampled


def _encode_polygons(parts: list[list[float]], size: Size) -> dict[str, Any]:
    code: dict[str, Any] = mask_codec.merge(mask_codec.frPyObjects(parts, *size))
    return code


def _is_code(segmentation: Any) -> bool:
    return isinstance(segmentation, Mapping) and {"counts", "size"} <= segmentation.keys()
