"""Name what records were evaluated on: the training images as well as the test images."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field

from rsa_eval.records.image_sets import (
    SPLITS,
    describe_images_of,
    image_hashes,
    name_image_set,
)
from rsa_eval.records.record import Record
from rsa_pretrain.data.sets import Split

_Hashes = Mapping[Split, str]


@dataclass
class _KnownSet:
    """A user's own images: where they were seen, and the SHA-256 of their splits."""

    name: str
    places: set[str] = field(default_factory=set)
    hashes: dict[Split, str] = field(default_factory=dict)

    def has(self, place: str, hashes: _Hashes) -> bool:
        """Return whether images at a place are these, as far as their hashes are known."""
        has_test = "test" in hashes and self.hashes.get("test") == hashes["test"]
        return (place in self.places or has_test) and not self.differing(hashes)

    def differing(self, hashes: _Hashes) -> list[Split]:
        """Return the splits whose images are known to be others."""
        return [split for split, own in hashes.items() if self.hashes.get(split, own) != own]


def name_evaluated_sets(records: Sequence[Record]) -> list[str]:
    """Name the images of each record, those of a user by their place.

    Folders of images are one set, named like the first of them, if they share a path or the
    content of the test images and no split is known to differ. Other content at a known path is
    named by its SHA-256 too.
    """
    names: list[str] = []
    known: list[_KnownSet] = []
    for record in records:
        place = name_image_set(record.data_set, record.config.get("data"))
        if place == record.data_set:
            names.append(place)
            continue
        hashes = image_hashes(record)
        found = next((each for each in known if each.has(place, hashes)), None)
        if found is None:
            earlier = next((each for each in known if place in each.places), None)
            splits = [] if earlier is None else earlier.differing(hashes)
            marks = ", ".join(describe_images_of(record, split) for split in splits)
            found = _KnownSet(f"{place}, {marks}" if marks else place)
            known.append(found)
        found.places.add(place)
        found.hashes = {**hashes, **found.hashes}
        names.append(found.name)
    return names


def split_by_images(
    keys: Sequence[Hashable], records: Sequence[Record]
) -> list[tuple[str | None, ...]]:
    """Return the SHA-256 of each record's training and test images.

    Older records have none; such a record counts as being of the images that all others of its
    key have, and of unknown ones if those differ.

    Args:
        keys: What the records of one evaluation have in common, for each record.
        records: As many.
    """
    known: dict[tuple[Hashable, Split], set[str]] = {}
    for key, record in zip(keys, records, strict=True):
        for split, own in image_hashes(record).items():
            known.setdefault((key, split), set()).add(own)

    def _of(key: Hashable, split: Split, hashes: _Hashes) -> str | None:
        others = known.get((key, split), set())
        return hashes.get(split, next(iter(others)) if len(others) == 1 else None)

    return [
        tuple(_of(key, split, image_hashes(record)) for split in SPLITS)
        for key, record in zip(keys, records, strict=True)
    ]
