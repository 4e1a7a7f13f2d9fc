"""Read LabelMe's JSON files: outlines, boxes and masks; grouped shapes form one object.

A rectangle is a box without a mask unless it is grouped with outlines or masks; then it is part of
the object's mask. Circles become polygons. Points and lines have no area and are not objects.
"""

import base64
import binascii
import json
import math
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as mask_codec

from detection.coco.importers.annotated import (
    Instance,
    Notes,
    ParsedFile,
    check_coordinates,
    text_of,
)
from detection.coco.loose_numbers import as_whole
from detection.coco.masks import Size, box_around, encode_mask, is_polygon, is_size
from rsa_pretrain.data.decode import EncodedImage
from rsa_pretrain.data.read_settings import ReadRules
from rsa_pretrain.plumbing.errors import UserError

# The last two are other tools' rotated rectangles, as four corners.
_OUTLINES = {"polygon", "oriented_rectangle", "rotation"}
# Divisible by four: the circle's box is exact.
_CIRCLE_CORNERS = 64
_SHAPE_KEYS = {"label", "points", "group_id", "shape_type", "mask"}
_FILE_KEYS = {"version", "shapes", "imagePath", "imageData", "imageHeight", "imageWidth"}
_COLOURS = {"line_color", "fill_color", "lineColor", "fillColor"}


class _Shape(NamedTuple):
    label: str
    kind: str
    corners: list[float]
    """x and y alternating; two opposite corners of a rectangle or mask."""
    group: str | int | None
    mask: NDArray[np.bool_] | None


def parse(where: str, content: bytes, notes: Notes, rules: ReadRules) -> ParsedFile:
    """Read one file.

    Args:
        where: The file, for errors and notes.
        content: Bytes of the file.
        notes: Receives content that is not carried over.
        rules: How to read images, masks included.

    Raises:
        UserError: If it is not LabelMe's JSON, or a shape is not as LabelMe writes it.
    """
    try:
        tree = json.loads(text_of(where, content))
    except UserError:
        raise  # undecodable text; UserError is a ValueError
    except (ValueError, RecursionError):
        raise UserError(f"'{where}' is not JSON") from None
    if not isinstance(tree, dict) or not isinstance(tree.get("shapes"), list):
        raise UserError(
            f"'{where}' is not LabelMe's: expected an object with a list 'shapes'; move other JSON "
            "files out of the folder"
        )
    name = tree.get("imagePath")
    if not isinstance(name, str | None):
        raise UserError(f"'{where}' has an imagePath that is not text: {str(name)[:80]}")
    _note_keys(tree, _FILE_KEYS, "of images", where, notes)
    shapes = [
        _shape(where, number, shape, notes, rules)
        for number, shape in enumerate(tree["shapes"], start=1)
    ]
    kept = [shape for shape in shapes if shape is not None]
    return ParsedFile(name, _size(where, tree), partial(_instances, kept))


def _size(where: str, tree: dict[str, Any]) -> Size | None:
    values = [tree.get("imageHeight"), tree.get("imageWidth")]
    if values == [None, None]:
        return None
    height, width = map(as_whole, values)
    if height is None or width is None or not is_size(height, width):
        raise UserError(f"'{where}' has an impossible imageHeight or imageWidth: {values}")
    return height, width


def _note_keys(tree: dict[str, Any], known: set[str], whose: str, named: str, notes: Notes) -> None:
    """Note unread keys that carry information; switches that are off carry none."""
    for key, value in tree.items():
        says = any(value.values()) if isinstance(value, dict) else value
        if says and key not in known | _COLOURS:
            notes.add(f"'{key}' {whose}, not carried over", named)


def _shape(where: str, number: int, shape: Any, notes: Notes, rules: ReadRules) -> _Shape | None:
    """Check a shape; None, and a note, if it cannot be carried over."""
    place = f"shape {number} of '{where}'"
    if not isinstance(shape, dict):
        raise UserError(f"{place} is not an object")
    label, kind = shape.get("label"), shape.get("shape_type") or "polygon"
    if not isinstance(label, str) or not label.strip():
        raise UserError(f"{place} has no label")
    label = " ".join(label.split())
    place = f"{place} ('{label}')"
    points, group = shape.get("points"), shape.get("group_id")
    if not isinstance(points, list) or not all(
        isinstance(point, list) and len(point) == 2 for point in points
    ):
        raise UserError(f"{place} has no list 'points' of x, y pairs")
    if not isinstance(group, str | int | None) or not isinstance(kind, str):
        raise UserError(f"{place} has a group_id or shape_type that is not a number or text")
    corners = [value for point in points for value in point]
    check_coordinates(place, corners)
    named = f"{where}: {label}"
    _note_keys(shape, _SHAPE_KEYS, "of shapes", named, notes)
    if kind in _OUTLINES:
        if not is_polygon(corners):
            notes.add("outlines of fewer than three corners, left out", named)
            return None
    elif kind not in ("rectangle", "circle", "mask"):
        notes.add(f"shapes of the type '{kind}', left out", named)
        return None
    elif len(corners) < 4:
        raise UserError(f"{place} is a {kind} of fewer than two points")
    if kind == "circle":
        notes.add(f"circles, converted to polygons of {_CIRCLE_CORNERS} corners", named)
        corners = _circle(*corners[:4])
        check_coordinates(place, corners)
    mask = _mask(place, shape.get("mask"), rules) if kind == "mask" else None
    return _Shape(label, kind, corners, group, mask)


def _circle(x: float, y: float, x_on_edge: float, y_on_edge: float) -> list[float]:
    radius = math.hypot(x_on_edge - x, y_on_edge - y)
    angles = np.arange(_CIRCLE_CORNERS) * (2 * np.pi / _CIRCLE_CORNERS)
    corners = np.stack([x + radius * np.cos(angles), y + radius * np.sin(angles)], axis=1)
    flat: list[float] = corners.ravel().tolist()
    return flat


def _mask(place: str, encoded: Any, rules: ReadRules) -> NDArray[np.bool_]:
    try:
        content = base64.b64decode(encoded, validate=True)
    except (TypeError, binascii.Error, ValueError):
        raise UserError(f"{place} has no mask in base64") from None
    image, _ = EncodedImage(content, f"the mask of {place}", "draw it again", rules).read()
    pixels: NDArray[np.bool_] = np.asarray(image).max(axis=2) > 0
    return pixels


def _instances(shapes: list[_Shape], size: Size) -> list[Instance]:
    objects: dict[Any, list[_Shape]] = {}
    for number, shape in enumerate(shapes):
        key = (number,) if shape.group is None else (shape.label, shape.group)
        objects.setdefault(key, []).append(shape)
    return [_joined(parts, size) for parts in objects.values()]


def _joined(parts: list[_Shape], size: Size) -> Instance:
    """Merge a group of shapes, or a single one, into an object."""
    label = parts[0].label
    outlines = [_outline(part) for part in parts if part.mask is None]
    if all(part.kind == "rectangle" for part in parts):
        return Instance(label, box_around(outlines, size))
    segmentation: Any = outlines
    if len(outlines) < len(parts):
        codes = [_code(part, size) for part in parts if part.mask is not None]
        codes += [encode_mask([outline], size) for outline in outlines]
        code = mask_codec.merge(codes)
        segmentation = {"size": list(size), "counts": code["counts"].decode("ascii")}
    return Instance(label, box_around(segmentation, size), segmentation)


def _outline(part: _Shape) -> list[float]:
    if part.kind != "rectangle":
        return part.corners
    x, y = part.corners[::2], part.corners[1::2]
    x0, y0, x1, y1 = min(x), min(y), max(x), max(y)
    return [x0, y0, x1, y0, x1, y1, x0, y1]


def _code(part: _Shape, size: Size) -> dict[str, Any]:
    """Place a mask in its image, its first pixel at its first corner, as LabelMe does."""
    assert part.mask is not None
    full = np.zeros(size, dtype=np.uint8, order="F")
    left, top = round(part.corners[0]), round(part.corners[1])
    inside = part.mask[max(-top, 0) :, max(-left, 0) :]
    target = full[max(top, 0) :, max(left, 0) :]
    rows, columns = (min(sides) for sides in zip(inside.shape, target.shape, strict=True))
    target[:rows, :columns] = inside[:rows, :columns]
    code: dict[str, Any] = mask_codec.encode(full)
    return code
