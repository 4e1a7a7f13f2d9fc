"""Compare the fine detail of two photographs, which decides between resemblance and a copy.

At 32 pixels two shirts on the same floor look the same. What remains of a copy that is compressed,
brightened, resized or slightly cropped is its detail, and no other photograph has that.
"""

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

DETAIL_SIDE = 64
"""Side in pixels at which detail is compared; smaller images are not."""
MIN_DETAIL = 0.8
"""Correlation of detail from which on two photographs are one: on clothing_mini, pairs of
different garments that resemble each other at 32 pixels reach 0.68, and copies, compressed to JPEG
quality 30, reduced to a quarter, blurred or cropped by 8 %, at least 0.88."""
_BLUR_PIXELS = 2.0
_MARGIN = 6
_SHARES = (1.0, 0.97, 0.94, 0.91)
"""Share of one image's side that is compared with the whole other one, for crops."""

Detail = npt.NDArray[np.float32]


def detail_correlation(first: Image.Image, second: Image.Image) -> float:
    """Return the largest correlation of two images' detail over shifts and crops.

    Detail is the grey image at 64×64 pixels minus its blurred copy. The search stops at
    ``MIN_DETAIL``.

    Args:
        first: RGB.
        second: RGB.
    """
    whole = _detail(first, 1.0), _detail(second, 1.0)
    best = -1.0
    for share in _SHARES:
        best = max(best, _best_shift(_detail(first, share), whole[1]))
        best = max(best, _best_shift(_detail(second, share), whole[0]))
        if best >= MIN_DETAIL:
            break
    return best


def _detail(image: Image.Image, share: float) -> Detail:
    width, height = image.size
    left, top = width * (1 - share) / 2, height * (1 - share) / 2
    grey = image.convert("L").resize(
        (DETAIL_SIDE, DETAIL_SIDE),
        Image.Resampling.BILINEAR,
        box=(left, top, width - left, height - top),
    )
    blurred = grey.filter(ImageFilter.GaussianBlur(_BLUR_PIXELS))
    return np.asarray(grey, np.float32) - np.asarray(blurred, np.float32)


def _best_shift(middle: Detail, whole: Detail) -> float:
    side = DETAIL_SIDE - 2 * _MARGIN
    inner = middle[_MARGIN : _MARGIN + side, _MARGIN : _MARGIN + side].ravel()
    inner = inner - inner.mean()
    windows = np.lib.stride_tricks.sliding_window_view(whole, (side, side))
    parts = windows.reshape(-1, side * side)
    parts = parts - parts.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(inner) * np.linalg.norm(parts, axis=1)
    return float((parts @ inner / np.maximum(lengths, 1e-6)).max())
