"""Read sets in PASCAL VOC's folders as one COCO-format set.

The set YEAR/SET is the list ``VOCYEAR/ImageSets/Main/SET.txt`` of image ids, each with
``VOCYEAR/Annotations/ID.xml`` and ``VOCYEAR/JPEGImages/ID.jpg``. Images are numbered from 1 in the
order of the lists, classes in the given order.
"""

import difflib
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from detection.coco.data_settings import SetRole, VocDataConfig
from detection.coco.image_list import header_size
from detection.coco.importers import voc
from detection.coco.importers.annotated import AnnotatedImage, Instance, Notes, coco_sections
from detection.coco.masks import Size
from detection.coco.sets import CocoSet, FaultySet
from detection.coco.validate import Fault
from rsa_pretrain.data.read_settings import ReadRules
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.name_lists import first_of
from rsa_pretrain.plumbing.progress import progress_bar
from rsa_pretrain.plumbing.text_files import read_limited, read_text

# Of an annotation file or a list.
_LARGEST_MIB = 16
ANNOTATION_FILE = "annotation_file"
"""Key of an image's entry."""
_LISTS = Path("ImageSets", "Main")
MISSING_FILE = "images without an annotation file"
UNREADABLE_FILE = "annotation files that cannot be read"
UNKNOWN_CLASS = "objects of a class that data.classes does not list"
UNKNOWN_SIZE = "images whose size neither the annotation file nor the image states"
LISTED_TWICE = "images that are listed twice"


class ListedImage(NamedTuple):
    """An image of a list."""

    folder: str
    """VOCYEAR, below the root."""
    id: str
    """File name of the image and the annotations, without suffix."""

    @property
    def image(self) -> str:
        """Path of the image below the root."""
        return f"{self.folder}/JPEGImages/{self.id}.jpg"

    @property
    def annotations(self) -> str:
        """Path of the annotation file below the root."""
        return f"{self.folder}/Annotations/{self.id}.xml"


def read_voc(data: VocDataConfig, role: SetRole, rules: ReadRules) -> FaultySet:
    """Read the lists and annotation files of a set.

    Args:
        data: The folders, the lists and the classes.
        role: The set.
        rules: How to read the images.

    Raises:
        UserError: If a list is missing, unreadable, empty or not of image ids.
    """
    reader = _Reader(data, rules)
    images = reader.read(list(listed_images(data, role)))
    sections = coco_sections(images, data.classes, reader.notes)
    for image, entry in zip(images, sections["images"], strict=True):
        entry[ANNOTATION_FILE] = image.source
    kinds = reader.notes.kinds
    repairs = tuple(f"{len(kinds[kind]):,} {kind}" for kind in kinds if _is_repair(kind))
    coco = CocoSet(
        annotations_path(data, role), data.root, sections, repairs, rules=rules, images_key=None
    )
    return FaultySet(coco, reader.faults, data.source_of(role))


def annotations_path(data: VocDataConfig, role: SetRole) -> Path:
    """Return the path that stands for a set's annotations: its list, or the root if several."""
    sets = data.sets_of(role)
    return _list_path(data.root, sets[0]) if len(sets) == 1 else data.root


def voc_sha256(data: VocDataConfig, role: SetRole) -> str:
    """Return the SHA-256 of a set's image ids and annotation files, wherever they lie.

    Raises:
        UserError: As ``read_voc``, or if an annotation file cannot be read.
    """
    digest = hashlib.sha256(repr(data.classes).encode())
    for listed in listed_images(data, role):
        content = hashlib.sha256(read_limited(data.root / listed.annotations, _LARGEST_MIB))
        digest.update(f"\n{listed.image} {content.hexdigest()}".encode())
    return digest.hexdigest()


def _is_repair(kind: str) -> bool:
    """Return whether a note is of something read differently than written."""
    return kind != voc.DIFFICULT and not kind.endswith(voc.NOT_CARRIED_OVER)


class _Reader:
    """Reads the annotation files of listed images.

    Args:
        data: The root and the classes.
        rules: How to read the images.
    """

    def __init__(self, data: VocDataConfig, rules: ReadRules) -> None:
        self._root, self._classes, self._rules = data.root, set(data.classes), rules
        self._folded = {name.casefold(): name for name in data.classes}
        self.notes = Notes()
        self.faults: list[Fault] = []

    def read(self, listed: Sequence[ListedImage]) -> list[AnnotatedImage]:
        """Return the images whose annotation files can be read, with objects of known classes."""
        images: dict[str, AnnotatedImage] = {}
        with progress_bar(len(listed), "reading annotations", "file") as bar:
            for entry in listed:
                bar.update()
                if entry.image in images:
                    self.faults.append(Fault(LISTED_TWICE, entry.image))
                    continue
                image = self._read_one(entry)
                if image is not None:
                    images[entry.image] = image
        return list(images.values())

    def _read_one(self, entry: ListedImage) -> AnnotatedImage | None:
        path = self._root / entry.annotations
        if not path.is_file():
            self.faults.append(Fault(MISSING_FILE, f"{entry.image} (no {entry.annotations})"))
            return None
        try:
            parsed = voc.parse(entry.annotations, read_limited(path, _LARGEST_MIB), self.notes)
        except UserError as error:
            self.faults.append(Fault(UNREADABLE_FILE, str(error)))
            return None
        size = parsed.size or self._size_of(entry)
        if size is None:
            return None
        known = list(self._known(entry, parsed.instances(size)))
        return AnnotatedImage(entry.image, size, entry.annotations, known)

    def _size_of(self, entry: ListedImage) -> Size | None:
        try:
            return header_size(self._root / entry.image, self._rules)
        except UserError as error:
            self.faults.append(Fault(UNKNOWN_SIZE, str(error)))
            return None

    def _known(self, entry: ListedImage, instances: Sequence[Instance]) -> Iterator[Instance]:
        for instance in instances:
            if instance.label in self._classes:
                yield instance
            else:
                found = f"'{instance.label}' ({entry.annotations}{self._nearest(instance.label)})"
                self.faults.append(Fault(UNKNOWN_CLASS, found))

    def _nearest(self, label: str) -> str:
        near = difflib.get_close_matches(label.casefold(), self._folded, n=1)
        return f"; the nearest is '{self._folded[near[0]]}'" if near else ""


def listed_images(data: VocDataConfig, role: SetRole) -> Iterator[ListedImage]:
    """Yield the images of a set, in the order of its lists.

    Raises:
        UserError: If a list is missing, unreadable, empty or not of image ids.
    """
    for name in data.sets_of(role):
        path = _list_path(data.root, name)
        if not path.is_file():
            raise UserError(f"there is no list '{path}' of data.{role}{_hint(data.root, path)}")
        rows = [line.split() for line in read_text(path, _LARGEST_MIB).splitlines() if line.strip()]
        if not rows:
            raise UserError(f"'{path}' lists no images; expected one image id a line")
        wrong = next((row for row in rows if len(row) != 1 or "/" in row[0]), None)
        if wrong is not None:
            raise UserError(
                f"'{path}' has a line '{' '.join(wrong)}', expected one image id a line; the lists "
                "of single classes, such as cat_trainval, are not for detection"
            )
        folder = path.relative_to(data.root).parts[0]
        yield from (ListedImage(folder, row[0]) for row in rows)


def _list_path(root: Path, name: str) -> Path:
    year, _, image_set = name.partition("/")
    return root / f"VOC{year}" / _LISTS / f"{image_set}.txt"


def _hint(root: Path, path: Path) -> str:
    """Say what to do about a list that is not there."""
    folder = path.relative_to(root).parts[0]
    if path.parent.is_dir():
        # The lists of single classes are named CLASS_SET.
        known = sorted(found.stem for found in path.parent.glob("*.txt") if "_" not in found.stem)
        return f"; beside it are {first_of(known) or 'none'}"
    for place in (root / "VOCdevkit", root.parent):
        if (place / folder / _LISTS).is_dir():
            return f"; set data.root to '{place}'"
    return (
        f"; data.root should be the folder VOCdevkit, with {folder}/{_LISTS} in it; "
        "'rsa-detect download voc0712' downloads VOC's own"
    )
