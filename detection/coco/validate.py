"""Validate COCO-format annotation files and separate out faulty entries."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from detection.coco.box_forms import Entry, faults_of_all
from detection.coco.json_file import read_json
from detection.coco.masks import MAX_COORDINATE_PIXELS, code_fault, is_box, is_size
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.name_lists import first_of

_REQUIRED: dict[str, dict[str, type]] = {
    "images": {"id": int, "file_name": str, "height": int, "width": int},
    "categories": {"id": int, "name": str},
    "annotations": {"id": int, "image_id": int, "category_id": int, "bbox": list},
}
REPEATED = "entries with a repeated id"
BAD_SIZE = "images with an impossible size"
UNKNOWN_IMAGE = "annotations of an image that is not listed"
UNKNOWN_CATEGORY = "annotations of a category that is not listed"
BAD_BOX = "annotations whose bbox is not [x, y, width, height]"
BAD_NUMBER = "annotations whose area is not a number or whose iscrowd is not 0 or 1"
BAD_DIFFICULT = "annotations whose difficult is not 0 or 1"
BAD_CODE = "annotations whose run-length code is damaged"


class Fault(NamedTuple):
    """An entry that cannot be used."""

    what: str
    """One of this module's constants or of ``box_forms.FAULTS_OF_ALL``, or a list of keys that the
    entries of a section lack."""
    entry: str
    """Name of the entry, with its value where that helps."""


class RawTree(NamedTuple):
    """An annotation file parsed down to its lists."""

    tree: dict[str, Any]
    """With the lists images, categories and annotations."""
    notes: tuple[str, ...]
    """Oddities of the file itself."""
    is_annotated: bool
    """True if the file has a list of annotations."""


def read_tree(path: Path, *, needs_annotations: bool = True) -> RawTree:
    """Read an annotation file down to its three lists.

    Args:
        path: JSON.
        needs_annotations: If false, a file with images alone is accepted: its annotations, or
            categories too, may be missing or null; their lists are then empty.

    Raises:
        UserError: If it is unreadable, lacks a list, or lists no images or no categories.
    """
    tree, notes = read_json(path, "annotations")
    if not isinstance(tree, dict):
        raise UserError(f"annotations '{path}' are not COCO format: expected a JSON object")
    is_annotated = tree.get("annotations") is not None
    optional = ("annotations", "categories") if not needs_annotations else ()
    tree = {**tree, **{key: [] for key in optional if tree.get(key) is None}}
    if needs_annotations and not is_annotated and isinstance(tree.get("images"), list):
        raise UserError(
            f"'{path}' lists images without annotations (no list 'annotations'), which training "
            "and evaluation need; 'rsa-detect predict' accepts such a file"
        )
    for section in _REQUIRED:
        if not isinstance(tree.get(section), list):
            raise UserError(f"annotations '{path}' are not COCO format: no list '{section}'")
    for section in ("images",) if optional else ("images", "categories"):
        if not tree[section]:
            raise UserError(f"'{path}' lists no {section}")
    return RawTree(tree, notes, is_annotated)


def sort_out(tree: Mapping[str, Any]) -> tuple[dict[str, Any], list[Fault]]:
    """Split a file's content into valid entries and the faults of the others.

    Args:
        tree: The lists of ``read_tree``, repaired by ``repair.repair``; not changed.

    Returns:
        The same with valid entries only, and the faults of the rest, in the file's order. An
        annotation that is unusable only because of its image or category adds no fault.
    """
    faults: list[Fault] = []
    sound: dict[str, Any] = dict(tree)
    for section, keys in _REQUIRED.items():
        sound[section] = _sound_entries(tree[section], section, keys, faults)
    images = {image["id"]: image for image in sound["images"]}
    categories = {category["id"] for category in sound["categories"]}
    listed = {section: _ids(tree[section]) for section in ("images", "categories")}
    annotations = []
    for annotation in sound["annotations"]:
        image = images.get(annotation["image_id"])
        found = _faults_of(annotation, image)
        if image is None and _is_unlisted(annotation["image_id"], listed["images"]):
            found.append(Fault(UNKNOWN_IMAGE, _reference(annotation, "image_id")))
        is_known = annotation["category_id"] in categories
        if not is_known and _is_unlisted(annotation["category_id"], listed["categories"]):
            found.append(Fault(UNKNOWN_CATEGORY, _reference(annotation, "category_id")))
        faults += found
        if image is not None and is_known and not found:
            annotations.append(annotation)
    for what, entries in faults_of_all(annotations, images):
        faults += [Fault(what, _name(entry)) for entry in entries]
    return {**sound, "annotations": annotations}, faults


def in_one_line(faults: Sequence[Fault]) -> str:
    """Name each kind of fault with its number of entries and the first of them."""
    kinds: dict[str, list[str]] = {}
    for fault in faults:
        kinds.setdefault(fault.what, []).append(fault.entry)
    return "; ".join(f"{what} ({len(found):,}): {first_of(found)}" for what, found in kinds.items())


def _sound_entries(
    entries: list[Any], section: str, keys: Mapping[str, type], faults: list[Fault]
) -> list[Entry]:
    sound: dict[int, Entry] = {}
    for position, entry in enumerate(entries):
        wrong = _lacking(entry, keys)
        if wrong:
            faults.append(
                Fault(f"{section} without a valid {', '.join(wrong)}", f"{section}[{position}]")
            )
        elif section == "images" and not is_size(entry["height"], entry["width"]):
            size = f"{entry['width']}x{entry['height']}"
            faults.append(Fault(BAD_SIZE, f"{section}[{position}] ({entry['file_name']}, {size})"))
        elif entry["id"] in sound:
            faults.append(Fault(REPEATED, f"{section} has id {entry['id']} twice"))
        else:
            sound[entry["id"]] = entry
    return list(sound.values())


def _lacking(entry: Any, keys: Mapping[str, type]) -> list[str]:
    if not isinstance(entry, dict):
        return list(keys)
    # Compare exact types: JSON's true is an int to Python.
    return [key for key, kind in keys.items() if type(entry.get(key)) is not kind]


def _ids(entries: list[Any]) -> set[int] | None:
    """Return the ids of all entries, faulty ones too; None if one lacks an id (it may be any)."""
    found = [entry.get("id") if isinstance(entry, dict) else None for entry in entries]
    ids = {number for number in found if type(number) is int}
    return ids if set(map(type, found)) <= {int} else None


def _is_unlisted(number: int, listed: set[int] | None) -> bool:
    return listed is not None and number not in listed


def _faults_of(annotation: Entry, image: Entry | None) -> list[Fault]:
    faults = []
    box = annotation["bbox"]
    if not is_box(box):
        faults.append(Fault(BAD_BOX, f"{_name(annotation)} (bbox {json.dumps(box)[:60]})"))
    area = annotation.get("area", 0)
    is_area = type(area) in (int, float) and 0 <= area <= MAX_COORDINATE_PIXELS**2
    if annotation.get("iscrowd", 0) not in (0, 1) or not is_area:
        faults.append(Fault(BAD_NUMBER, _name(annotation)))
    if annotation.get("difficult", 0) not in (0, 1):
        faults.append(Fault(BAD_DIFFICULT, _name(annotation)))
    if image is not None:
        reason = code_fault(annotation.get("segmentation"), (image["height"], image["width"]))
        if reason is not None:
            faults.append(Fault(BAD_CODE, f"{_name(annotation)} ({reason})"))
    return faults


def _name(annotation: Entry) -> str:
    return f"annotation {annotation['id']}"


def _reference(annotation: Entry, key: str) -> str:
    return f"{_name(annotation)} ({key} {annotation[key]})"
