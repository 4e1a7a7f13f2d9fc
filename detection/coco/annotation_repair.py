"""Repair an annotation's flags, mask, box and area."""

from collections import Counter

from detection.coco.box_forms import Entry
from detection.coco.loose_numbers import NUMBER_TYPES, as_flag, as_number, as_whole
from detection.coco.mask_nesting import is_nested_as_in_coco, nested_as_in_coco
from detection.coco.masks import BOX_LENGTH, Size, area_of, box_around, has_sound_mask, is_box

READ_AS_NUMBERS = "are text or decimals, read as numbers"
_LOOSE_CROWDS = (
    "values of annotations.iscrowd are text, decimals or true and false, read as 0 and 1"
)

_LOOSE_DIFFICULT = (
    "values of annotations.difficult are text, decimals, missing or true and false, read as 0 and 1"
)


def is_strict_annotation(entry: Entry) -> bool:
    """Return whether nothing needs repair; it runs on every annotation, so it must be fast."""
    try:
        return (
            type(entry["id"]) is int
            and type(entry["image_id"]) is int
            and type(entry["category_id"]) is int
            and type(entry["iscrowd"]) is int
            and type(entry.get("difficult", 0)) is int
            and type(entry["area"]) in NUMBER_TYPES
            and entry["area"] > 0
            and len(entry["bbox"]) == BOX_LENGTH
            and set(map(type, entry["bbox"])) <= NUMBER_TYPES
            and is_nested_as_in_coco(entry.get("segmentation"))
        )
    except (KeyError, TypeError):
        return False


def complete_annotation(entry: Entry, size: Size | None, notes: Counter[str]) -> None:
    """Repair an annotation's flags, mask, box and area in place.

    Args:
        entry: A copy.
        size: Of its image, if known.
        notes: Counts repairs.
    """
    _complete_crowd(entry, notes)
    _complete_difficult(entry, notes)
    if size is not None:
        entry["segmentation"], done = nested_as_in_coco(entry.get("segmentation"), size)
        if done is not None:
            notes[done] += 1
    mask, box = entry.get("segmentation"), entry.get("bbox")
    mask_size = None
    # Checking a code decodes all of it: only if something must be computed from it.
    if size is not None and (box in (None, []) or (as_number(entry.get("area")) or 0) <= 0):
        mask_size = size if has_sound_mask(mask, size) else None
    if isinstance(box, list) and any(isinstance(value, str) for value in box):
        numbers = [as_number(value) for value in box]
        if None not in numbers:
            entry["bbox"] = numbers
            notes[f"values of annotations.bbox {READ_AS_NUMBERS}"] += 1
    elif box in (None, []) and mask_size is not None:
        entry["bbox"] = box_around(mask, mask_size)
        notes["values of annotations.bbox are missing; computed from the masks"] += 1
    _complete_area(entry, mask_size, notes)


def _complete_crowd(entry: Entry, notes: Counter[str]) -> None:
    value = entry.get("iscrowd")
    if value is None:
        entry["iscrowd"] = 0
        notes["values of annotations.iscrowd are missing; taken as 0"] += 1
    elif type(value) is not int:
        number = int(value) if isinstance(value, bool) else as_whole(value)
        if number is not None:
            entry["iscrowd"] = number
            notes[_LOOSE_CROWDS] += 1


def _complete_difficult(entry: Entry, notes: Counter[str]) -> None:
    value = entry.get("difficult", 0)
    flag = None if type(value) is int else as_flag(value)
    if flag is not None:
        entry["difficult"] = int(flag)
        notes[_LOOSE_DIFFICULT] += 1


def _complete_area(entry: Entry, size: Size | None, notes: Counter[str]) -> None:
    """Repair an annotation's area in place, by its mask if ``size`` is given, else by its box."""
    value = entry.get("area")
    number = as_number(value)
    # Every object has some: COCO's metrics would count it as small, or not at all.
    if number is not None and number <= 0:
        value = number = None
    if type(value) not in NUMBER_TYPES and number is not None:
        entry["area"] = number
        notes[f"values of annotations.area {READ_AS_NUMBERS}"] += 1
    elif value is None and size is not None:
        entry["area"] = area_of(entry["segmentation"], size)
        notes["values of annotations.area are missing or not above 0; computed from the masks"] += 1
    elif value is None and is_box(entry.get("bbox")):
        _, _, width, height = entry["bbox"]
        entry["area"] = max(width, 0) * max(height, 0)
        notes["values of annotations.area are missing or not above 0; taken as the boxes'"] += 1
