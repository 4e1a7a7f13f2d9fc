"""Convert every mode in which image files store pixels to RGB, uint8.

Colours of transparent pixels are read as stored, and colour profiles are not
applied, as in torchvision and timm. Deep grey levels are scaled by the range of their type:
Pillow itself would cut all levels above 255.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

_DEEP_GREY = "16-bit grey"
_FLOATS = "float grey"
_DEEP_COLOURS = "16-bit channels"
_TRANSPARENCY = "transparency"
_FRAMES = "several frames"
TURNED = "turned by EXIF"

HOW_READ = {
    "RGB": "as they are",
    "RGBA": "alpha is ignored: the stored colours count",
    "L": "the grey level becomes all three channels",
    "LA": "the same, alpha is ignored",
    "1": "black 0, white 255",
    "P": "the palette's colours",
    "PA": "the same, alpha is ignored",
    "CMYK": "converted without a profile; JPEG files store it inverted, as Adobe writes them",
    "YCbCr": "converted",
    "LAB": "converted to sRGB",
    _DEEP_GREY: "scaled by the range of the type: 65535 becomes 255, rounded",
    _FLOATS: "0 to 1 becomes 0 to 255, rounded; other values and NaN are refused",
    _DEEP_COLOURS: "the high byte of each: 65535 becomes 255",
    _TRANSPARENCY: "ignored: the stored colours count",
    _FRAMES: "the first one",
    TURNED: "made upright (data.exif_orientation)",
}
"""Conversion to RGB, by each part of the names that ``stored_mode`` returns."""

_SEPARATOR = " + "
_WHITE_IS_ZERO = (262, 0)  # TIFF's tag PhotometricInterpretation


def stored_mode(image: Image.Image) -> str:
    """Name the mode of an opened image that is not loaded yet: parts of ``HOW_READ``, joined."""
    name, raw_mode = image.mode.removesuffix("X"), raw_layout(image)
    if _largest_level(image) is not None:
        name = _DEEP_GREY
    elif name == "F":
        name = _FLOATS
    elif ";16" in raw_mode:
        name = with_part("LA" if raw_mode.startswith("LA") else name, _DEEP_COLOURS)
    if _TRANSPARENCY in image.info:
        name = with_part(name, _TRANSPARENCY)
    return with_part(name, _FRAMES) if getattr(image, "is_animated", False) else name


def with_part(name: str, part: str) -> str:
    """Add a part to a name."""
    return f"{name}{_SEPARATOR}{part}"


def how_read(names: Iterable[str]) -> dict[str, str]:
    """Return how images with these names are read, by part; plain RGB is omitted."""
    parts = {part for name in names for part in name.split(_SEPARATOR)} - {"RGB"}
    return {part: how for part, how in HOW_READ.items() if part in parts}


def to_rgb(image: Image.Image) -> Image.Image:
    """Return an opened image's first frame as RGB.

    Raises:
        ValueError: If there is no rule for its mode, or its values are out of the rule's range.
    """
    largest = _largest_level(image)  # no longer known once the image is loaded
    image.load()
    if largest is not None:
        return _grey(image, _scaled(np.asarray(image), largest))
    if image.mode == "F":
        return _grey(image, _scaled_floats(np.asarray(image)))
    if image.mode == "I":
        low, high = image.getextrema()
        raise ValueError(
            f"integers of 32 bits or with a sign, from {low} to {high}, expected 8 or 16 bits "
            "without sign"
        )
    if image.mode.removesuffix("X") not in HOW_READ:  # RGBX, in Pillow below 11
        raise ValueError(f"stored as {image.mode}, expected RGB or grey")
    # Pillow would look for a transparent colour of the RGB image, and warn that there is none.
    image.info.pop("transparency", None)
    return image.convert("RGB")


def _largest_level(image: Image.Image) -> int | None:
    """Return the largest level of the type that stores deep unsigned grey."""
    raw_mode = raw_layout(image)
    if raw_mode == "I;12":
        return 2**12 - 1
    # Pillow scales JPEG 2000 and PPM files to 16 bits; it opens some files as I.
    is_deep = image.mode.startswith("I;16") or (
        image.mode == "I" and (raw_mode in ("I;16", "I;16B") or image.format == "PPM")
    )
    return 2**16 - 1 if is_deep else None


def raw_layout(image: Image.Image) -> str:
    """Return Pillow's name for a file's pixel layout; empty if it has none."""
    tiles: list[Any] = getattr(image, "tile", [])
    arguments = tiles[0][3] if tiles else ""
    first = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return first if isinstance(first, str) else ""


def _scaled(levels: npt.NDArray[Any], largest: int) -> npt.NDArray[np.uint8]:
    return ((levels.astype(np.uint32) * 255 + largest // 2) // largest).astype(np.uint8)


def _scaled_floats(values: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    if np.isnan(values).any():
        raise ValueError("floats of which some are NaN, expected 0 to 1")
    low, high = values.min(), values.max()
    if low < 0 or high > 1:
        raise ValueError(f"floats from {low:g} to {high:g}, expected 0 to 1")
    return np.rint(values * np.float32(255)).astype(np.uint8)


def _grey(image: Image.Image, levels: npt.NDArray[np.uint8]) -> Image.Image:
    tag, white_is_zero = _WHITE_IS_ZERO
    # Pillow itself inverts those of 8 bits.
    if getattr(image, "tag_v2", {}).get(tag) == white_is_zero:
        levels = 255 - levels
    return Image.fromarray(levels).convert("RGB")
