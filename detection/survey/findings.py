"""Collect the findings about a COCO-format set and put them into words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from detection.coco.box_forms import Entry
from detection.coco.data_settings import SetRole
from detection.coco.sets import CocoSet
from detection.coco.voc.reading import ANNOTATION_FILE
from rsa_pretrain.plumbing.name_lists import first_of


@dataclass
class SetFindings:
    """Findings about a set.

    Attributes:
        role: Purpose of the set.
        coco: Its valid entries and image folder.
        category_sizes: By category id: name, instances (crowds left out), images with one.
        errors: Faults that stop training or evaluation, each with its entries.
        notes: Oddities that are handled, each with its entries; one without entries is a statement
            about the whole set.
        usable: Ids of the images that could be read and have the annotated size.
    """

    role: SetRole
    coco: CocoSet
    category_sizes: dict[int, tuple[str, int, int]] = field(default_factory=dict)
    errors: dict[str, list[str]] = field(default_factory=dict)
    notes: dict[str, list[str]] = field(default_factory=dict)
    usable: set[int] = field(default_factory=set)

    def to_tree(self) -> dict[str, Any]:
        """Return counts and findings as plain JSON-compatible values."""
        return {
            "annotations": str(self.coco.annotations_path),
            "images": str(self.coco.images_dir),
            "num_images": len(self.coco.tree["images"]),
            "num_annotations": len(self.coco.tree["annotations"]),
            "categories": [
                {"id": number, "name": name, "num_instances": instances, "num_images": images}
                for number, (name, instances, images) in self.category_sizes.items()
            ],
            "errors": self.errors,
            "notes": self.notes,
        }

    def name_of(self, annotation: Entry) -> str:
        """Return an annotation's id, or its class and file where files have no ids."""
        file = self._annotation_files.get(annotation["image_id"])
        if file is None:
            return f"annotation {annotation['id']}"
        return f"{self.coco.category_names[annotation['category_id']]} ({file})"

    @cached_property
    def _annotation_files(self) -> dict[int, str]:
        """PASCAL VOC's annotation file of each image, by its id."""
        files = {image["id"]: image.get(ANNOTATION_FILE) for image in self.coco.tree["images"]}
        return {number: file for number, file in files.items() if file is not None}

    def add_note(self, what: str, entries: Sequence[str]) -> None:
        """Add entries to a kind of note."""
        if entries:
            self.notes.setdefault(what, []).extend(entries)

    def add_error(self, what: str, entries: Sequence[str]) -> None:
        """Add entries to a kind of error."""
        if entries:
            self.errors.setdefault(what, []).extend(entries)


def count_in_words(found: SetFindings) -> str:
    """Return the set's numbers of entries in words."""
    counts = {name: len(found.coco.tree[name]) for name in ("images", "annotations", "categories")}
    return ", ".join(f"{count:,} {name}" for name, count in counts.items())


def in_words(findings: Mapping[str, Sequence[str]], limit: int) -> list[str]:
    """Return one line per kind of finding, naming its first entries and counting them all."""
    return [
        f"{what} ({len(entries):,}): {first_of(entries, limit)}" if entries else what
        for what, entries in findings.items()
    ]
