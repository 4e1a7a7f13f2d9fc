"""Represent the content of any tool's annotation file and convert it to COCO format."""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from detection.coco.box_forms import box_of
from detection.coco.masks import MAX_COORDINATE_PIXELS, Size, are_coordinates, area_of
from detection.coco.sets import reason_to_leave_out
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.name_lists import first_of

_log = logging.getLogger(__name__)

# Finer than any annotator draws, and short in the file.
_DECIMALS = 3
_TOLERANCE_PIXELS = 1.0
_NOTHING_INSIDE = "objects without area inside their images, left out"
_CUT = "objects that extend beyond their images; their boxes are clipped"


@dataclass(frozen=True)
class Instance:
    """One object on an image."""

    label: str
    bbox: Sequence[float]
    """x, y, width and height in pixels; x = 0 is the left edge of the first pixel."""
    segmentation: list[list[float]] | dict[str, Any] | None = None
    """Polygons or a run-length code, as COCO has them; None if there is only a box."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Further keys of COCO's entry."""


class ParsedFile(NamedTuple):
    """One annotation file, before its image is opened.

    Attributes:
        image_name: Image name stated in it; None leaves that to the file's own name.
        size: Of the image, as far as stated.
        instances: Returns the objects of an image of a given size.
    """

    image_name: str | None
    size: Size | None
    instances: Callable[[Size], list[Instance]]


class AnnotatedImage(NamedTuple):
    """An image with its objects.

    Attributes:
        file_name: Relative to the folder of the images, with forward slashes.
        size: In pixels.
        source: The annotation file, for notes; None where there is none.
        instances: Its objects.
    """

    file_name: str
    size: Size
    source: str | None
    instances: list[Instance]


class Notes:
    """Notes on content that is dropped or read differently than written.

    Attributes:
        kinds: Entries by kind of note.
    """

    def __init__(self) -> None:
        self.kinds: dict[str, list[str]] = {}

    def add(self, kind: str, entry: str) -> None:
        """Add an entry to a kind of note."""
        self.kinds.setdefault(kind, []).append(entry)

    def report(self) -> None:
        """Log one line per kind with its number of entries and the first few names."""
        for kind, entries in self.kinds.items():
            _log.warning("%s (%s): %s", kind, f"{len(entries):,}", first_of(entries))


def text_of(where: str, content: bytes) -> str:
    """Decode a text file: UTF-8 with or without a byte order mark, or UTF-16.

    Raises:
        UserError: If it is neither.
    """
    encoding = json.detect_encoding(content[:4])
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        raise UserError(
            f"'{where}' is not {encoding.upper()} (byte {error.start:,}); save it as UTF-8"
        ) from None


def check_coordinates(where: str, values: Sequence[Any]) -> None:
    """Refuse values that cannot be positions in an image.

    Raises:
        UserError: If a value is not a number, not finite or far outside any image.
    """
    if not are_coordinates(values):
        wrong = next(value for value in values if not are_coordinates([value]))
        raise UserError(
            f"{where} has {str(wrong)[:40]!r} as a coordinate, expected a number within "
            f"±{MAX_COORDINATE_PIXELS:,.0f} pixels"
        )


def coco_sections(
    images: Sequence[AnnotatedImage], names: Sequence[str], notes: Notes
) -> dict[str, list[dict[str, Any]]]:
    """Return images, annotations and categories in COCO's strict form, each numbered from 1.

    Boxes are clipped to their images; outlines stay as drawn. Areas are those of the masks in
    pixels, or of the boxes without masks.

    Args:
        images: In the order of their ids.
        names: Of the categories, in the order of their ids; every label is one of them.
        notes: Receives what is left out or cut.
    """
    numbers = {name: number for number, name in enumerate(names, start=1)}
    annotations: list[dict[str, Any]] = []
    for image_id, image in enumerate(images, start=1):
        for instance in image.instances:
            entry = _entry(instance, image, notes)
            if entry is not None:
                ids = {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": numbers[instance.label],
                }
                annotations.append(ids | entry)
    return {
        "images": [
            {
                "id": image_id,
                "file_name": image.file_name,
                "height": image.size[0],
                "width": image.size[1],
            }
            for image_id, image in enumerate(images, start=1)
        ],
        "annotations": annotations,
        "categories": [{"id": number, "name": name} for name, number in numbers.items()],
    }


def _entry(instance: Instance, image: AnnotatedImage, notes: Notes) -> dict[str, Any] | None:
    """Return an object's COCO entry without its ids; None if it lies outside the image."""
    x, y, box_width, box_height = instance.bbox
    x0, y0, x1, y1 = box_of({"bbox": instance.bbox}, image.size)
    box = [round(value, _DECIMALS) for value in (x0, y0, x1 - x0, y1 - y0)]
    entry: dict[str, Any] = {"bbox": box, "iscrowd": 0, **instance.extra}
    named = f"{image.source}: {instance.label}"
    if reason_to_leave_out(entry, image.size) is not None:
        notes.add(_NOTHING_INSIDE, named)
        return None
    cut = (x0 - x, y0 - y, x + box_width - x1, y + box_height - y1)
    if max(cut) > _TOLERANCE_PIXELS:
        notes.add(_CUT, named)
    entry["area"] = box[2] * box[3]
    if instance.segmentation is not None:
        mask = entry["segmentation"] = _rounded(instance.segmentation)
        # An outline finer than the pixels covers none, yet the object has some area.
        entry["area"] = area_of(mask, image.size) or entry["area"]
    return entry


def _rounded(segmentation: list[list[float]] | dict[str, Any]) -> Any:
    if isinstance(segmentation, dict):
        return segmentation
    return [[round(value, _DECIMALS) for value in outline] for outline in segmentation]
