"""Read EXIF orientations cheaply from headers, and apply them to images and tensors."""

import struct

from PIL import Image
from torch import Tensor

_TAG = 0x0112
_UPRIGHT = 1
_BYTE_ORDERS = {b"II*\0": "<", b"MM\0*": ">"}
# EXIF's integer types, with struct's format characters.
_INTEGERS = {1: "B", 3: "H", 4: "I"}

# The operation that makes an image upright, by orientation: Pillow's name for it, and the same as
# the dimensions to flip, and whether rows and columns are exchanged afterwards.
_TURNS: dict[int, tuple[Image.Transpose, list[int], bool]] = {
    2: (Image.Transpose.FLIP_LEFT_RIGHT, [-1], False),
    3: (Image.Transpose.ROTATE_180, [-2, -1], False),
    4: (Image.Transpose.FLIP_TOP_BOTTOM, [-2], False),
    5: (Image.Transpose.TRANSPOSE, [], True),
    6: (Image.Transpose.ROTATE_270, [-2], True),
    7: (Image.Transpose.TRANSVERSE, [-2, -1], True),
    8: (Image.Transpose.ROTATE_90, [-1], True),
}


def orientation_of(image: Image.Image) -> int:
    """Return an opened image's EXIF orientation, 1 to 8; 1 if it has none or a damaged one.

    Pillow's own reader parses every tag, and warns of damaged ones without naming the file.
    """
    exif = image.info.get("exif")
    if exif is not None:
        return orientation_in(exif)
    # A TIFF's tags are those of EXIF; Pillow removes this one after turning the image.
    stated = getattr(image, "tag_v2", {}).get(_TAG, _UPRIGHT)
    return stated if stated in _TURNS else _UPRIGHT


def orientation_in(exif: bytes) -> int:
    """Return the orientation that a block of EXIF data states, 1 to 8; 1 if it is damaged."""
    block = exif.removeprefix(b"Exif\0\0")
    order = _BYTE_ORDERS.get(block[:4])
    if order is None:
        return _UPRIGHT
    try:
        (start,) = struct.unpack_from(f"{order}I", block, 4)
        (num_entries,) = struct.unpack_from(f"{order}H", block, start)
        for entry in range(start + 2, start + 2 + 12 * num_entries, 12):
            tag, kind = struct.unpack_from(f"{order}HH", block, entry)
            if tag == _TAG and kind in _INTEGERS:
                (stated,) = struct.unpack_from(f"{order}{_INTEGERS[kind]}", block, entry + 8)
                return stated if stated in _TURNS else _UPRIGHT
    except struct.error:
        pass
    return _UPRIGHT


def exchanges_sides(orientation: int) -> bool:
    """Return whether turning an image upright exchanges its width and height."""
    return orientation in _TURNS and _TURNS[orientation][2]


def turn_image(image: Image.Image, orientation: int) -> Image.Image:
    """Return an image made upright."""
    return image if orientation == _UPRIGHT else image.transpose(_TURNS[orientation][0])


def turn_pixels(pixels: Tensor, orientation: int) -> Tensor:
    """Return pixels, (C, H, W), made upright."""
    if orientation == _UPRIGHT:
        return pixels
    _, flipped, exchanged = _TURNS[orientation]
    pixels = pixels.flip(flipped) if flipped else pixels
    return pixels.transpose(-2, -1) if exchanged else pixels
