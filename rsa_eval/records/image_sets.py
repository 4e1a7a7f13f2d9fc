"""Name the images of records: a user's own folders share a data set's name, not their images."""

from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

from rsa_eval.records.record import Record
from rsa_pretrain.data.sets import Split

ANNOTATIONS_SHA256 = "annotations_sha256"
"""Key of a detector's details: the SHA-256 of each split's annotations, wherever they lie."""

SPLITS: Mapping[Split, str] = {"train": "training images", "test": "test images"}
"""Names of the images of each split."""

_SHOWN_HASH = 8
_OWN_IMAGES = frozenset({"imagefolder", "webdataset"})


def name_image_set(name: str, data: object) -> str:
    """Return a data set's name; one of the user's own images is followed by its place.

    Args:
        name: As ``data.name``.
        data: The settings of ``data``; without a place in them, the name stands alone.
    """
    place = _place(name, data)
    return name if place is None else f"{name} {place}"


def name_training_set(name: str, data: object) -> str:
    """Return a data set's name; one of the user's own images is followed by its folder's name.

    Where the folder is stored may differ between the machines that train one row.

    Args:
        name: As ``data.name``.
        data: The settings of ``data``; without a place in them, the name stands alone.
    """
    place = _place(name, data)
    return name if place is None else f"{name} {PurePath(place).name}"


def name_image_sets(records: Sequence[Record]) -> list[str]:
    """Name the test images of each record.

    Folders of images that share a path or a content are one set, named like the first of them.
    """
    names: list[str] = []
    known: dict[str, str] = {}
    for record in records:
        name = name_image_set(record.data_set, record.config.get("data"))
        if name != record.data_set:
            facts = image_facts(record, "test")
            marks = [name, *([] if facts is None else [facts["sha256"]])]
            name = next((known[mark] for mark in marks if mark in known), name)
            known |= dict.fromkeys(marks, name)
        names.append(name)
    return names


def annotations_hash(record: Record, split: Split) -> str | None:
    """Return the SHA-256 of a detector's annotations; None if the record has none."""
    hashes = record.details.get(ANNOTATIONS_SHA256)
    found = hashes.get(split) if isinstance(hashes, dict) else None
    return found if isinstance(found, str) else None


def annotations_differ(one: Record, other: Record, split: Split) -> bool:
    """Return whether two detectors' annotations are known to be different ones."""
    return len({annotations_hash(record, split) for record in (one, other)} - {None}) > 1


def image_facts(record: Record, split: Split) -> dict[str, Any] | None:
    """Return count and SHA-256 of a split's images; None if the record has none."""
    images = record.details.get("images")
    facts = images.get(split) if isinstance(images, dict) else None
    if not isinstance(facts, dict):
        return None
    is_known = isinstance(facts.get("count"), int) and isinstance(facts.get("sha256"), str)
    return facts if is_known else None


def image_hashes(record: Record) -> dict[Split, str]:
    """Return the SHA-256 of each split's images, as far as the record has them."""
    found = {split: image_facts(record, split) for split in SPLITS}
    return {split: str(facts["sha256"]) for split, facts in found.items() if facts is not None}


def differing_splits(records: Sequence[Record]) -> list[Split]:
    """Return the splits of which some records are known to have other images."""
    hashes = [image_hashes(record) for record in records]
    return [split for split in SPLITS if len({own[split] for own in hashes if split in own}) > 1]


def describe_images_of(record: Record, split: Split) -> str:
    """Describe a split's images like "400 training images (1a2b3c4d)"; empty if unknown."""
    facts = image_facts(record, split)
    if facts is None:
        return ""
    return f"{facts['count']:,} {SPLITS[split]} ({str(facts['sha256'])[:_SHOWN_HASH]})"


def _place(name: str, data: object) -> str | None:
    if name not in _OWN_IMAGES or not isinstance(data, Mapping):
        return None
    place = data.get("root") or data.get("shards")
    return None if place is None else str(place)
