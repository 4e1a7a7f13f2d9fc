"""Detect boxes that are written in another form than COCO's.

Masks decide: they show where an object is, so the form in which boxes fit them is the intended one.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from detection.coco.masks import Size, box_around, has_mask, polygons

Entry = dict[str, Any]
Corners = tuple[float, float, float, float]
"""x0, y0, x1, y1 in pixels."""

# Hand drawing, rounding and in- or excluding the last pixel move a side by less.
OFF_PIXELS = 2.0
OFF_SHARE = 0.1

_EXPECTED = "expected [x, y, width, height] in pixels"
_MULTIPLY = "multiply by the image's width and height"
_FRACTIONS = f"in fractions of the image, {_EXPECTED}: {_MULTIPLY}"
FRACTIONS = f"annotations whose bbox seems to be {_FRACTIONS}"
POLYGON_FRACTIONS = (
    "annotations whose polygons seem to be in fractions of the image, "
    f"expected [x1, y1, x2, y2, …] in pixels: {_MULTIPLY}"
)
# Allows fractions that rounding has pushed out of the image.
_LARGEST_FRACTION = 1.01

# Number of boxes that are sampled.
_LOOKED_AT = 1000
# Among those with masks, the share that must fit in another form, and the share and number that
# must not fit in COCO's: an object in the image's first corner fits in several.
_FITTING, _MISFITTING, _FEWEST_MISFITTING = 0.95, 0.1, 3
# Without masks, the number and the share of boxes that must leave their images to be suspected of
# being corners; fewer could be chance. Areas are rounded.
_FEWEST, _SUSPICIOUS = 8, 0.25
_AREA_TOLERANCE = 0.02


_Sized = tuple[Entry, Size]


class Form(NamedTuple):
    """A way other than COCO's to write a box."""

    fault: str
    """Message for annotations in this form."""
    corners: Callable[[Sequence[float]], Corners]
    """Converts the four numbers."""
    is_relative: bool
    """True if they are fractions of the image."""

    def read(self, box: Sequence[float], size: Size) -> Corners:
        """Return the box that four numbers denote on an image of that size."""
        if not self.is_relative:
            return self.corners(box)
        height, width = size
        x0, y0, x1, y1 = self.corners(box)
        return x0 * width, y0 * height, x1 * width, y1 * height


def _of_sides(box: Sequence[float]) -> Corners:
    x, y, width, height = box
    return x, y, x + width, y + height


def _of_corners(box: Sequence[float]) -> Corners:
    x0, y0, x1, y1 = box
    return x0, y0, x1, y1


def _of_corners_row_first(box: Sequence[float]) -> Corners:
    y0, x0, y1, x1 = box
    return x0, y0, x1, y1


def _of_centre(box: Sequence[float]) -> Corners:
    x, y, width, height = box
    return x - width / 2, y - height / 2, x + width / 2, y + height / 2


_READERS = {
    "[x, y, width, height]": _of_sides,
    "[x0, y0, x1, y1]": _of_corners,
    "[y0, x0, y1, x1]": _of_corners_row_first,
    "[centre x, centre y, width, height]": _of_centre,
}
FORMS = tuple(
    Form(f"annotations whose bbox seems to be {name}{ending}", corners, is_relative)
    for ending, is_relative in ((f", {_EXPECTED}", False), (f" {_FRACTIONS}", True))
    for name, corners in _READERS.items()
    if is_relative or corners is not _of_sides
)
"""All but COCO's."""
_CORNERS = FORMS[0]
FAULTS_OF_ALL = frozenset({FRACTIONS, POLYGON_FRACTIONS, *(form.fault for form in FORMS)})
"""Faults that ``faults_of_all`` may find."""


def _inside(corners: Corners, size: Size) -> Corners:
    """Clip a box to an image of that size."""
    x0, y0, x1, y1 = corners
    height, width = size
    return (
        min(max(x0, 0.0), width),
        min(max(y0, 0.0), height),
        min(max(x1, 0.0), width),
        min(max(y1, 0.0), height),
    )


def box_of(annotation: Mapping[str, Any], size: Size) -> Corners:
    """Return an annotation's box inside its image."""
    return _inside(_of_sides(annotation["bbox"]), size)


def box_of_mask(annotation: Mapping[str, Any], size: Size) -> Corners | None:
    """Return the box around an object's mask; None for crowds and objects without a mask."""
    mask = annotation.get("segmentation")
    if annotation.get("iscrowd", 0) or not has_mask(mask):
        return None
    return _inside(_of_sides(box_around(mask, size)), size)


def fits(box: Corners, around: Corners) -> bool:
    """Return whether each side of a box is close to that of the box around a mask."""
    x0, y0, x1, y1 = around
    across, down = (max(OFF_PIXELS, OFF_SHARE * side) for side in (x1 - x0, y1 - y0))
    return (
        abs(box[0] - x0) <= across
        and abs(box[1] - y0) <= down
        and abs(box[2] - x1) <= across
        and abs(box[3] - y1) <= down
    )


def form_that_fits(annotation: Mapping[str, Any], size: Size, around: Corners) -> Form | None:
    """Return the form other than COCO's in which a box fits its mask, or None."""
    return next((form for form in FORMS if fits(form.read(annotation["bbox"], size), around)), None)


def faults_of_all(
    annotations: Sequence[Entry], images: Mapping[int, Entry]
) -> Iterator[tuple[str, Sequence[Entry]]]:
    """Yield faults shared by all boxes or all polygons of a file, with their entries.

    Args:
        annotations: Without individual faults.
        images: By id.
    """
    sample = annotations[:: max(1, len(annotations) // _LOOKED_AT)]
    sized = [(entry, _size(images[entry["image_id"]])) for entry in sample]
    fault = _fault_of_boxes(annotations, sized)
    if fault is not None:
        yield fault, annotations
    relative = _all_with_relative_polygons(annotations)
    if relative:
        yield POLYGON_FRACTIONS, relative


def _fault_of_boxes(annotations: Sequence[Entry], sample: Sequence[_Sized]) -> str | None:
    """Return the fault of all boxes, judged by a sample; None if there seems to be none."""
    boxes = [entry["bbox"] for entry in annotations]
    relative = any(map(any, boxes)) and all(map(_are_fractions, boxes))
    masked = [
        (entry["bbox"], size, around)
        for entry, size in sample
        if (around := box_of_mask(entry, size)) is not None
    ]
    misfitting = sum(
        not fits(_inside(_of_sides(box), size), around) for box, size, around in masked
    )
    for form in FORMS if _are_many(misfitting, len(masked)) else ():
        fitting = sum(fits(form.read(box, size), around) for box, size, around in masked)
        if fitting >= _FITTING * len(masked):
            return form.fault
    if relative:
        return FRACTIONS
    # If most boxes fit their masks, the form is COCO's.
    in_doubt = 2 * misfitting >= len(masked)
    are_corners = in_doubt and (_reach_out(sample) or _have_areas_of_corners(sample))
    return _CORNERS.fault if are_corners else None


def _reach_out(sample: Sequence[_Sized]) -> bool:
    """Return whether boxes make sense only as two corners.

    Read in COCO's form they leave many images; read as corners they all fit.
    """
    reaching_out = 0
    for entry, (height, width) in sample:
        x, y, right, bottom = entry["bbox"]
        if not (x < right <= width + 1 and y < bottom <= height + 1):
            return False
        reaching_out += x + right > width + 1 or y + bottom > height + 1
    return len(sample) >= _FEWEST and reaching_out > _SUSPICIOUS * len(sample)


def _have_areas_of_corners(sample: Sequence[_Sized]) -> bool:
    """Return whether annotated areas match boxes read as two corners, and not COCO's form."""
    as_corners = as_sides = 0
    for entry, _ in sample:
        x, y, right, bottom = entry["bbox"]
        area = entry.get("area", 0)
        as_corners += math.isclose((right - x) * (bottom - y), area, rel_tol=_AREA_TOLERANCE)
        as_sides += math.isclose(right * bottom, area, rel_tol=_AREA_TOLERANCE)
    num_sides_wrong = len(sample) - as_sides
    return as_corners >= _FITTING * len(sample) and _are_many(num_sides_wrong, len(sample))


def _are_many(num_misfitting: int, number: int) -> bool:
    return num_misfitting >= max(_FEWEST_MISFITTING, _MISFITTING * number)


def _are_fractions(values: Sequence[float]) -> bool:
    return max(map(abs, values)) <= _LARGEST_FRACTION


def _all_with_relative_polygons(annotations: Sequence[Entry]) -> list[Entry]:
    """Return the annotations with polygons if all polygons are fractions; else none."""
    found = []
    for entry in annotations:
        numbers = [value for part in polygons(entry.get("segmentation")) for value in part]
        if numbers and not _are_fractions(numbers):
            return []
        if any(numbers):
            found.append(entry)
    return found


def _size(image: Mapping[str, Any]) -> Size:
    return image["height"], image["width"]
