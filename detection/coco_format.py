"""What a COCO-format annotation file must hold, and the entries that do not."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from detection.masks import MAX_COORDINATE_PIXELS, are_coordinates, code_fault
from rsa_pretrain.errors import UserError

Entry = dict[str, Any]

_REQUIRED = {
    "images": {"id": int, "file_name": str, "height": int, "width": int},
    "categories": {"id": int, "name": str},
    "annotations": {"id": int, "image_id": int, "category_id": int, "bbox": list},
}
MALFORMED = "entries without what the format requires"
REPEATED = "entries whose id another has"
BAD_SIZE = "images of an impossible size"
UNKNOWN_IMAGE = "annotations of an image that is not listed"
UNKNOWN_CATEGORY = "annotations of a category that is not listed"
BAD_BOX = "annotations whose bbox is not [x, y, width, height]"
BAD_NUMBER = "annotations whose area is no number or whose iscrowd is not 0 or 1"
BAD_CODE = "annotations whose run-length code is damaged"


class Fault(NamedTuple):
    """An entry that cannot be used."""

    what: str
    """One of this module's constants."""
    entry: str
    """Which entry, and its value where that helps."""


def read_tree(path: Path) -> dict[str, Any]:
    """Read an annotation file as far as its three lists.

    Raises:
        UserError: If it is unreadable, lacks one, or lists no images or no categories.
    """
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read annotations '{path}': {error.strerror}") from None
    except (ValueError, RecursionError):
        raise UserError(f"annotations '{path}' are not JSON") from None
    if not isinstance(tree, dict):
        raise UserError(f"annotations '{path}' are not COCO format: expected a JSON object")
    for section in _REQUIRED:
        if not isinstance(tree.get(section), list):
            raise UserError(f"annotations '{path}' are not COCO format: no list '{section}'")
    for section in ("images", "categories"):
        if not tree[section]:
            raise UserError(f"'{path}' lists no {section}")
    return tree


def sort_out(tree: Mapping[str, Any]) -> tuple[dict[str, Any], list[Fault]]:
    """Split a file's content into sound entries and the faults of the others.

    Args:
        tree: As ``read_tree`` returns it; not changed.

    Returns:
        The same with sound entries only, and what is wrong with the rest, in the file's order.
    """
    faults: list[Fault] = []
    sound: dict[str, Any] = dict(tree)
    for section, keys in _REQUIRED.items():
        sound[section] = _sound_entries(tree[section], section, keys, faults)
    images = {image["id"]: image for image in sound["images"]}
    categories = {category["id"] for category in sound["categories"]}
    annotations = []
    for annotation in sound["annotations"]:
        found = list(_faults_of(annotation, images, categories))
        faults += found
        if not found:
            annotations.append(annotation)
    return {**sound, "annotations": annotations}, faults


def _sound_entries(
    entries: list[Any], section: str, keys: Mapping[str, type], faults: list[Fault]
) -> list[Entry]:
    well_formed = []
    for position, entry in enumerate(entries):
        where = f"{section}[{position}]"
        wrong = [key for key, kind in keys.items() if not _has(entry, key, kind)]
        if wrong:
            faults.append(Fault(MALFORMED, f"{where} has no valid {', '.join(wrong)}"))
        elif section == "images" and not _is_size(entry["height"], entry["width"]):
            size = f"{entry['width']}x{entry['height']}"
            faults.append(Fault(BAD_SIZE, f"{where} ({entry['file_name']}, {size})"))
        else:
            well_formed.append(entry)
    sound: dict[int, Entry] = {}
    for entry in well_formed:
        if entry["id"] in sound:
            faults.append(Fault(REPEATED, f"{section} has the id {entry['id']} twice"))
        sound.setdefault(entry["id"], entry)
    return list(sound.values())


def _has(entry: Any, key: str, kind: type) -> bool:
    # JSON's true is an int to Python.
    value = entry.get(key) if isinstance(entry, dict) else None
    return isinstance(value, kind) and not isinstance(value, bool)


def _is_size(height: int, width: int) -> bool:
    return 1 <= height <= MAX_COORDINATE_PIXELS and 1 <= width <= MAX_COORDINATE_PIXELS


def _faults_of(
    annotation: Entry, images: Mapping[int, Entry], categories: set[int]
) -> Iterator[Fault]:
    name = f"annotation {annotation['id']}"
    image = images.get(annotation["image_id"])
    if image is None:
        yield Fault(UNKNOWN_IMAGE, f"{name} (image_id {annotation['image_id']})")
    if annotation["category_id"] not in categories:
        yield Fault(UNKNOWN_CATEGORY, f"{name} (category_id {annotation['category_id']})")
    box = annotation["bbox"]
    if len(box) != 4 or not are_coordinates(box):
        yield Fault(BAD_BOX, f"{name} (bbox {json.dumps(box)[:60]})")
    area = annotation.get("area", 0)
    is_area = type(area) in (int, float) and 0 <= area <= MAX_COORDINATE_PIXELS**2
    if annotation.get("iscrowd", 0) not in (0, 1) or not is_area:
        yield Fault(BAD_NUMBER, name)
    if image is not None:
        reason = code_fault(annotation.get("segmentation"), (image["height"], image["width"]))
        if reason is not None:
            yield Fault(BAD_CODE, f"{name} ({reason})")
