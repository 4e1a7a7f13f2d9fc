"""Read YOLO's text files: a line per object, its class number and fractions of the image's sides.

A line of five values is a box (class, centre, width, height); an odd number of seven or more is an
outline (class, then x and y of each corner). Oriented boxes look like outlines of four corners, and
key points with an odd number of values like outlines, too: nothing in the file distinguishes them.
"""

from collections.abc import Sequence
from functools import partial

from detection.coco.importers.annotated import Instance, Notes, ParsedFile, text_of
from detection.coco.loose_numbers import as_number, as_whole
from detection.coco.masks import FEWEST_COORDINATES, Size, box_around
from rsa_pretrain.plumbing.errors import UserError

_BOX_VALUES = 4
_ORIENTED_BOX_VALUES = 8
# One pixel of a 1,000 px image: rounding and slips of the hand stay below, pixel units do not.
_TOLERANCE = 0.001
_CUT = f"lines with values up to {_TOLERANCE} outside [0, 1], which are clipped"
_FOUR_CORNERS = "outlines of four corners; if these are oriented boxes, they are not masks"


def parse(where: str, content: bytes, notes: Notes, names: Sequence[str]) -> ParsedFile:
    """Read one file of labels; an empty one is an image without objects.

    Args:
        where: The file, for errors and notes.
        content: Bytes of the file.
        notes: Receives lines that are clipped or doubtful.
        names: Class names by number.

    Raises:
        UserError: If a line is neither a box nor an outline in fractions, of a listed class.
    """
    objects = []
    for number, line in enumerate(text_of(where, content).splitlines(), start=1):
        if line.strip():
            objects.append(_parse_line(f"line {number} of '{where}'", line.split(), notes, names))
    return ParsedFile(None, None, partial(_instances, objects))


def _parse_line(
    place: str, words: list[str], notes: Notes, names: Sequence[str]
) -> tuple[str, list[float]]:
    """Return the label and the fractions of a line, between 0 and 1."""
    count = len(words) - 1
    if count != _BOX_VALUES and (count < FEWEST_COORDINATES or count % 2):
        raise UserError(
            f"{place} has {count + 1} values, expected 5 (class, centre, width, height) or an odd "
            "number from 7 on (class, corners); confidences and key points cannot be imported"
        )
    label = as_whole(words[0])
    if label is None or not 0 <= label < len(names):
        raise UserError(
            f"{place} is of class {words[0]!r}, but the classes are 0 to {len(names) - 1}; "
            "name the file that lists them all with --classes"
        )
    values = []
    for word in words[1:]:
        value = as_number(word)
        if value is None or not -_TOLERANCE <= value <= 1 + _TOLERANCE:
            raise UserError(
                f"{place} has {word!r}, expected fractions of the image's sides between 0 and 1 "
                "(are these pixels?)"
            )
        values.append(min(max(value, 0.0), 1.0))
    if any(value != as_number(word) for value, word in zip(values, words[1:], strict=True)):
        notes.add(_CUT, place)
    if count == _ORIENTED_BOX_VALUES:
        notes.add(_FOUR_CORNERS, place)
    return names[label], values


def _instances(objects: list[tuple[str, list[float]]], size: Size) -> list[Instance]:
    height, width = size
    instances = []
    for label, values in objects:
        pixels = [value * (height if index % 2 else width) for index, value in enumerate(values)]
        if len(values) == _BOX_VALUES:
            x, y, box_width, box_height = pixels
            box = [x - box_width / 2, y - box_height / 2, box_width, box_height]
            instances.append(Instance(label, box))
        else:
            instances.append(Instance(label, box_around([pixels], size), [pixels]))
    return instances
