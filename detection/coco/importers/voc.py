"""Read PASCAL VOC's XML files: each object's ``bndbox``, and its ``polygon`` where a tool adds one.

VOC counts pixels from 1 and gives the first and the last of a box. COCO's box begins at the left
edge of the first pixel and ends at the right edge of the last: x = xmin - 1,
width = xmax - xmin + 1. Masks in ``SegmentationObject`` are not read.
"""

import xml.etree.ElementTree as ET

from detection.coco.importers.annotated import Instance, Notes, ParsedFile, check_coordinates
from detection.coco.loose_numbers import as_flag, as_number, as_whole
from detection.coco.masks import FEWEST_COORDINATES, Size, is_size
from rsa_pretrain.plumbing.errors import UserError

_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_READ = {"name", "bndbox", "polygon", "difficult"}
_SAYS_NOTHING = {"", "0", "unspecified"}
DIFFICULT = (
    "objects marked difficult; trained on like any other, but neither found nor missed in "
    "evaluation, as in VOC's own"
)
NOT_CARRIED_OVER = "of objects, not carried over"
_FROM_ZERO = "boxes that begin at 0, although VOC counts from 1; clipped"
_UNKNOWN_OUTLINE = "outlines in an unknown form, left out; their boxes are kept"


class _NoDoctype(ET.TreeBuilder):
    """Refuses declarations, which could name other files or grow without bounds."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        raise ValueError("it has a DOCTYPE declaration, which annotations do not need")


def parse(where: str, content: bytes, notes: Notes) -> ParsedFile:
    """Read one file.

    Args:
        where: The file, for errors and notes.
        content: Bytes of the file.
        notes: Receives content that is not carried over.

    Raises:
        UserError: If it is not VOC's XML, or a name or box is missing or impossible.
    """
    try:
        root = ET.fromstring(content, parser=ET.XMLParser(target=_NoDoctype()))
    except (ET.ParseError, ValueError, LookupError) as error:
        raise UserError(f"'{where}' is not readable XML ({error})") from None
    if root.tag != "annotation":
        raise UserError(f"'{where}' is not PASCAL VOC's: it begins with <{root.tag}>")
    instances = [
        _instance(where, number, element, notes)
        for number, element in enumerate(root.findall("object"), start=1)
    ]
    return ParsedFile(_text(root, "filename") or None, _size(where, root), lambda _: instances)


def _text(element: ET.Element, path: str) -> str:
    return (element.findtext(path) or "").strip()


def _size(where: str, root: ET.Element) -> Size | None:
    """Return the image's size; None if a tool omitted it or wrote zeros."""
    words = [_text(root, f"size/{side}") for side in ("height", "width")]
    if set(words) <= {"", "0"}:
        return None
    height, width = (as_whole(word) for word in words)
    if height is None or width is None or not is_size(height, width):
        raise UserError(f"'{where}' has an impossible size: height {words[0]}, width {words[1]}")
    return height, width


def _instance(where: str, number: int, element: ET.Element, notes: Notes) -> Instance:
    label = " ".join(_text(element, "name").split())
    if not label:
        raise UserError(f"object {number} of '{where}' has no name")
    place = f"object {number} ('{label}') of '{where}'"
    if element.find("bndbox") is None:
        raise UserError(f"{place} has no bndbox")
    x0, y0, x1, y1 = _numbers(place, [_text(element, f"bndbox/{corner}") for corner in _CORNERS])
    if x1 < x0 or y1 < y0:
        raise UserError(
            f"{place} has an inverted box: xmin {x0:g}, ymin {y0:g}, xmax {x1:g}, ymax {y1:g}"
        )
    named = f"{where}: {label}"
    if min(x0, y0) < 1:
        notes.add(_FROM_ZERO, named)
    extra = {}
    difficult = as_flag(_text(element, "difficult"))
    if difficult is None:
        word = _text(element, "difficult")
        raise UserError(f"{place} has difficult '{word[:40]}', expected 0 or 1")
    if difficult:
        notes.add(DIFFICULT, named)
        extra["difficult"] = 1
    for tag in sorted({child.tag for child in element if _says_something(child)} - _READ):
        notes.add(f"<{tag}> {NOT_CARRIED_OVER}", named)
    outlines = [_outline(place, polygon) for polygon in element.findall("polygon")]
    if None in outlines:
        notes.add(_UNKNOWN_OUTLINE, named)
    known = [outline for outline in outlines if outline is not None]
    return Instance(label, [x0 - 1, y0 - 1, x1 - x0 + 1, y1 - y0 + 1], known or None, extra)


def _says_something(child: ET.Element) -> bool:
    return len(child) > 0 or (child.text or "").strip().lower() not in _SAYS_NOTHING


def _outline(place: str, polygon: ET.Element) -> list[float] | None:
    """Read corners ``<x1>``, ``<y1>``, ``<x2>``, … or ``<pt><x/><y/></pt>`` unchanged."""
    points = polygon.findall("pt")
    tags = [f"{axis}{number}" for number in range(1, len(polygon) // 2 + 1) for axis in "xy"]
    words = (
        [_text(point, axis) for point in points for axis in "xy"]
        if points
        else [_text(polygon, tag) for tag in tags]
    )
    if len(words) < FEWEST_COORDINATES or "" in words:
        return None
    return _numbers(place, words)


def _numbers(place: str, words: list[str]) -> list[float]:
    numbers = [as_number(word) for word in words]
    check_coordinates(
        place,
        [word if number is None else number for word, number in zip(words, numbers, strict=True)],
    )
    return [number for number in numbers if number is not None]
