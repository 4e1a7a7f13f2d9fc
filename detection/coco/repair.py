"""Normalise other tools' exports to COCO's strict form at load time.

All later code relies on the strict form. Nothing is repaired silently: every kind of repair is
returned as one counted note. Entries beyond repair are left unchanged for ``validate.sort_out``
to report.
"""

import itertools
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from detection.coco.annotation_repair import (
    READ_AS_NUMBERS,
    complete_annotation,
    is_strict_annotation,
)
from detection.coco.box_forms import Entry
from detection.coco.image_list import header_size
from detection.coco.loose_numbers import NUMBER_TYPES, as_whole
from detection.coco.masks import Size, is_size
from rsa_pretrain.data.read_settings import DEFAULT_RULES, ReadRules
from rsa_pretrain.plumbing.errors import UserError

_SIDES = ("height", "width")
_TIDIED = "values of images.file_name have backslashes or a leading slash, read as relative paths"


def repair(
    tree: Mapping[str, Any], images_dir: Path | None, rules: ReadRules = DEFAULT_RULES
) -> tuple[dict[str, Any], list[str]]:
    """Return a file's content in COCO's strict form, as far as possible.

    Args:
        tree: Three lists of entries, as ``validate.read_tree`` returns them; not changed.
        images_dir: Folder of the images, used to look up sizes missing from the file.
        rules: How to read the images.

    Returns:
        The content, and one line per kind of repair: how many, which and how.
    """
    notes: Counter[str] = Counter()
    images = _Numbered(tree["images"], "images", "file_name", notes)
    categories = _Numbered(tree["categories"], "categories", "name", notes)
    images.entries = [
        _with_path_and_size(entry, images_dir, rules, notes) for entry in images.entries
    ]
    categories.entries = [_with_name(entry, notes) for entry in categories.entries]
    sizes = {
        entry["id"]: (entry["height"], entry["width"])
        for entry in images.entries
        if _is_strict_image(entry) and is_size(entry["height"], entry["width"])
    }
    fresh = _fresh_ids(tree["annotations"])
    annotations = []
    for entry in tree["annotations"]:
        if isinstance(entry, dict) and not is_strict_annotation(entry):
            entry = _with_own_id(entry, "annotations", fresh, notes)
            _refer(entry, "image_id", images, notes)
            _refer(entry, "category_id", categories, notes)
            image_id = entry.get("image_id")
            size = sizes.get(image_id) if type(image_id) is int else None
            complete_annotation(entry, size, notes)
        annotations.append(entry)
    sections = {
        "images": images.entries,
        "annotations": annotations,
        "categories": categories.entries,
    }
    return {**tree, **sections}, [f"{count:,} {what}" for what, count in notes.items()]


class _Numbered:
    """A section's entries with integer ids, and the names by which annotations may refer to them.

    Args:
        entries: As read from the file.
        section: Its name.
        name_key: Key of a name that may stand for the id.
        notes: Counts repairs.
    """

    def __init__(
        self, entries: list[Any], section: str, name_key: str, notes: Counter[str]
    ) -> None:
        self.name_key = name_key
        fresh = _fresh_ids(entries)
        self.entries = [
            entry
            if not isinstance(entry, dict) or type(entry.get("id")) is int
            else _with_own_id(entry, section, fresh, notes)
            for entry in entries
        ]
        self._originals = entries
        self._known: tuple[set[int], dict[str, int], dict[str, int]] | None = None

    def find(self, reference: Any) -> tuple[int, str] | None:
        """Resolve a reference to an id and a note on how it was read, or None."""
        if self._known is None:
            self._known = self._index()
        ids, by_text, by_name = self._known
        whole = as_whole(reference)
        if whole in ids:
            return whole, READ_AS_NUMBERS
        if not isinstance(reference, str):
            return None
        if reference in by_text:
            return by_text[reference], "are text, read as the numbers given to those ids"
        if reference in by_name:
            return by_name[reference], f"are values of {self.name_key}, read as those entries' ids"
        return None

    def _index(self) -> tuple[set[int], dict[str, int], dict[str, int]]:
        ids: set[int] = set()
        by_text: dict[str, int] = {}
        by_name: dict[str, int] = {}
        pairs = list(zip(self._originals, self.entries, strict=True))
        names = Counter(_text_of(entry, self.name_key) for _, entry in pairs)
        for original, entry in pairs:
            number = entry.get("id") if isinstance(entry, dict) else None
            if type(number) is not int:
                continue
            ids.add(number)
            text = _text_of(original, "id")
            if text is not None:
                by_text[text] = number
            name = _text_of(entry, self.name_key)
            if name is not None and names[name] == 1:
                by_name[name] = number
        return ids, by_text, by_name


def _text_of(entry: Any, key: str) -> str | None:
    value = entry.get(key) if isinstance(entry, dict) else None
    return value if isinstance(value, str) else None


def _fresh_ids(entries: list[Any]) -> Iterator[int]:
    """Yield numbers above all ids; the ids are only scanned when the first is requested."""
    found = [as_whole(entry.get("id")) for entry in entries if isinstance(entry, dict)]
    yield from itertools.count(1 + max((id_ for id_ in found if id_ is not None), default=0))


def _with_own_id(entry: Entry, section: str, fresh: Iterator[int], notes: Counter[str]) -> Entry:
    """Copy an entry, replacing an id that is text, decimal or missing by an integer."""
    value = entry.get("id")
    number = as_whole(value)
    if number is None and (value is None or isinstance(value, str)):
        number = next(fresh)
        notes[f"values of {section}.id are missing or not numbers; numbered after the highest"] += 1
    elif number is not None and number is not value:
        notes[f"values of {section}.id {READ_AS_NUMBERS}"] += 1
    return dict(entry) if number is None else {**entry, "id": number}


def _refer(entry: Entry, key: str, section: _Numbered, notes: Counter[str]) -> None:
    value = entry.get(key)
    found = None if type(value) is int else section.find(value)
    if found is not None:
        entry[key], how = found
        notes[f"values of annotations.{key} {how}"] += 1


def _is_strict_image(entry: Any) -> bool:
    return (
        isinstance(entry, dict)
        and type(entry.get("id")) is int
        and type(entry.get("height")) is int
        and type(entry.get("width")) is int
        and type(entry.get("file_name")) is str
    )


def _with_path_and_size(
    entry: Any, images_dir: Path | None, rules: ReadRules, notes: Counter[str]
) -> Any:
    """Return an image with a relative path and integer sides, from its header if necessary."""
    name = _text_of(entry, "file_name")
    if name is None or (_is_strict_image(entry) and "\\" not in name and name[:1] != "/"):
        return entry
    repaired = dict(entry)
    if images_dir is not None and not os.path.isfile(images_dir / name):
        tidy = str(PurePosixPath(name.replace("\\", "/").lstrip("/")))
        if os.path.isfile(images_dir / tidy):
            repaired["file_name"] = tidy
            notes[_TIDIED] += 1
    for side in _SIDES:
        number = as_whole(entry.get(side))
        if number is not None and number is not entry[side]:
            repaired[side] = number
            notes[f"values of images.{side} {READ_AS_NUMBERS}"] += 1
    lacking = [side for side in _SIDES if entry.get(side) is None]
    if lacking and images_dir is not None:
        found = _header_size(images_dir / repaired["file_name"], rules)
        if found is not None:
            sides = dict(zip(_SIDES, found, strict=True))
            repaired |= {side: sides[side] for side in lacking}
            notes[f"images have no {' and '.join(lacking)}; read from their files"] += 1
    return repaired


def _header_size(path: Path, rules: ReadRules) -> Size | None:
    try:
        return header_size(path, rules)
    except UserError:
        return None  # reported when the set is opened or the image decoded


def _with_name(entry: Any, notes: Counter[str]) -> Any:
    """Return a category with a name, made from its id if missing."""
    if not isinstance(entry, dict) or isinstance(entry.get("name"), str):
        return entry
    value = entry.get("name")
    if value is None:
        notes["categories have no name; called by their ids"] += 1
        return {**entry, "name": f"category {entry.get('id')}"}
    if type(value) in NUMBER_TYPES:
        notes["values of categories.name are numbers, read as text"] += 1
        return {**entry, "name": str(value)}
    return entry
