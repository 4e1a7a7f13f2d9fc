"""Read and check COCO-format data sets, and select their usable instances."""

import contextlib
import io
import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from pycocotools.coco import COCO

from detection.coco.box_forms import Entry, box_of
from detection.coco.counted_objects import counted_objects
from detection.coco.image_places import missing_images, where_images_are
from detection.coco.masks import Size, has_mask
from detection.coco.repair import repair
from detection.coco.validate import Fault, in_one_line, read_tree, sort_out
from rsa_pretrain.data.read_settings import DEFAULT_RULES, ReadRules
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.name_lists import first_of

_log = logging.getLogger(__name__)

Annotation = Mapping[str, Any]

# A narrower box has no defined regression target once it is stored in float32.
MIN_BOX_SIDE_PIXELS = 0.01
CROWDS = "crowds"
NO_AREA = "boxes without area"


@dataclass(frozen=True)
class CocoSet:
    """One annotation file, or PASCAL VOC's lists, whose images all exist."""

    annotations_path: Path
    """The file; of PASCAL VOC's sets their list or, of several, the folder of all."""
    images_dir: Path
    tree: dict[str, Any]
    """The annotation file's content, in COCO's strict form."""
    repairs: tuple[str, ...] = ()
    """Values read differently than written: how many, which and how."""
    is_annotated: bool = True
    """True if the file has annotations; if not, their list is empty."""
    rules: ReadRules = DEFAULT_RULES
    """Rules for reading the images."""
    images_key: str | None = "the image folder"
    """Name of the setting for ``images_dir``, for messages; None if it is that of more."""

    @property
    def category_ids(self) -> list[int]:
        """The file's category ids, sorted; label = index + 1, so gaps close and 0 is background."""
        return sorted(category["id"] for category in self.tree["categories"])

    @property
    def category_names(self) -> dict[int, str]:
        """Category names by id."""
        return {category["id"]: category["name"] for category in self.tree["categories"]}

    @property
    def images(self) -> list[dict[str, Any]]:
        """Every image's entry, in order of id."""
        return sorted(self.tree["images"], key=lambda image: int(image["id"]))

    @property
    def sizes(self) -> dict[int, Size]:
        """Height and width of each image, by its id."""
        return {image["id"]: (image["height"], image["width"]) for image in self.tree["images"]}

    @property
    def objects(self) -> list[Entry]:
        """The annotations of single objects, without crowds."""
        return [entry for entry in self.tree["annotations"] if not entry.get("iscrowd", 0)]

    @property
    def objects_per_image(self) -> Counter[int]:
        """Number of objects of each image, by its id."""
        return Counter(entry["image_id"] for entry in self.objects)


class FaultySet(NamedTuple):
    """A set read as far as possible."""

    coco: CocoSet
    """Its valid entries; images may be missing."""
    faults: list[Fault]
    source: str
    """Name of the annotations, for errors."""

    def sound(self) -> CocoSet:
        """Return the set if all entries are valid; log its repairs.

        Raises:
            UserError: If not; each kind of fault is named with its number of entries.
        """
        if self.faults:
            raise UserError(f"{self.source} has {in_one_line(self.faults)}")
        for line in self.coco.repairs:
            _log.warning("'%s': %s", self.coco.annotations_path, line)
        return self.coco


@dataclass(frozen=True)
class TrainingImage:
    """An image with the instances that training uses."""

    image_id: int
    path: Path
    height: int
    width: int
    annotations: tuple[Annotation, ...]
    """Their boxes have area in the image; some may lack a mask. Without any, all is background."""
    labels: tuple[int, ...]
    """Contiguous label of each, from 1."""
    rules: ReadRules = DEFAULT_RULES
    """Rules for reading it."""

    @property
    def is_wide(self) -> bool:
        """True if it is wider than high."""
        return self.width > self.height


def read_faulty_coco(
    annotations: Path,
    images_dir: Path | None,
    rules: ReadRules = DEFAULT_RULES,
    images_key: str = "the image folder",
    *,
    needs_annotations: bool = True,
) -> FaultySet:
    """Read a COCO-format file as far as possible.

    Args:
        annotations: COCO-format JSON.
        images_dir: Folder of the images, used to look up sizes missing from the file.
        rules: Rules for reading the images.
        images_key: Name of the setting for the folder, for messages.
        needs_annotations: Whether to refuse a file with images alone.

    Raises:
        UserError: If ``read_tree`` refuses the file.
    """
    raw = read_tree(annotations, needs_annotations=needs_annotations)
    repaired, notes = repair(raw.tree, images_dir, rules)
    tree, faults = sort_out(repaired)
    repairs = (*raw.notes, *notes)
    folder = images_dir or annotations.parent
    coco = CocoSet(annotations, folder, tree, repairs, raw.is_annotated, rules, images_key)
    return FaultySet(coco, faults, f"'{annotations}'")


def read_sound_tree(path: Path, *, needs_annotations: bool = True) -> dict[str, Any]:
    """Return the content of an annotation file whose entries must all be valid; log repairs.

    Raises:
        UserError: If ``read_tree`` refuses it, or an entry is faulty.
    """
    return read_faulty_coco(path, None, needs_annotations=needs_annotations).sound().tree


def open_coco(
    annotations: Path,
    images_dir: Path,
    rules: ReadRules = DEFAULT_RULES,
    *,
    images_key: str = "the image folder",
    needs_annotations: bool = True,
) -> CocoSet:
    """Read an annotation file and check it and its images; the arguments are the same.

    Raises:
        UserError: If ``read_tree`` refuses the file, an entry is faulty, or images are missing.
    """
    coco = read_faulty_coco(
        annotations, images_dir, rules, images_key, needs_annotations=needs_annotations
    ).sound()
    check_images(coco)
    return coco


def check_images(coco: CocoSet) -> None:
    """Refuse a set whose images are not all there.

    Raises:
        UserError: If some are missing; says where they may be.
    """
    names = [image["file_name"] for image in coco.tree["images"]]
    missing = missing_images(names, coco.images_dir)
    if missing:
        places = where_images_are(missing, coco.images_dir, coco.images_key)
        raise UserError(
            f"{len(missing)} of {len(names)} images of '{coco.annotations_path}' are not in "
            f"'{coco.images_dir}': {first_of(missing)}{places}"
        )


def training_images(coco: CocoSet, *, keep_empty: bool = False) -> list[TrainingImage]:
    """Return the images that are usable for training, in order of id.

    Left out, and counted in one log line: crowds, boxes without area inside the image, and then
    images without instances.

    Args:
        coco: The training set.
        keep_empty: Whether to keep images without any annotation, not even one of these.

    Raises:
        UserError: If no instance is left.
    """
    labels = {category: index for index, category in enumerate(coco.category_ids, start=1)}
    by_image: dict[int, list[Annotation]] = {}
    left_out: Counter[str] = Counter()
    sizes = coco.sizes
    for annotation in coco.tree["annotations"]:
        reason = reason_to_leave_out(annotation, sizes[annotation["image_id"]])
        if reason is None:
            by_image.setdefault(annotation["image_id"], []).append(annotation)
        else:
            left_out[reason] += 1
    if not by_image:
        why = f" (left out: {_counts(left_out)})" if left_out else ""
        raise UserError(f"'{coco.annotations_path}' has no image with a usable instance{why}")
    if keep_empty:
        annotated = {annotation["image_id"] for annotation in coco.tree["annotations"]}
        by_image |= {number: [] for number in sizes.keys() - annotated}
    usable = [
        TrainingImage(
            image_id=image["id"],
            path=coco.images_dir / image["file_name"],
            height=image["height"],
            width=image["width"],
            annotations=tuple(by_image[image["id"]]),
            labels=tuple(labels[annotation["category_id"]] for annotation in by_image[image["id"]]),
            rules=coco.rules,
        )
        for image in coco.images
        if image["id"] in by_image
    ]
    left_out["images without instances"] = len(sizes) - len(usable)
    num_empty = sum(not image.annotations for image in usable)
    empty = f" ({num_empty} of them without objects)" if num_empty else ""
    counts = _counts(left_out) or "nothing"
    _log.info("training on %d images%s; left out: %s", len(usable), empty, counts)
    return usable


def _counts(left_out: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in left_out.items() if count)


def check_objects(path: Path, tree: Mapping[str, Any]) -> None:
    """Refuse annotations without any object to detect.

    Raises:
        UserError: If there are no objects, or only crowds and objects marked difficult.
    """
    if not counted_objects(tree):
        raise UserError(f"'{path}' has no object; average precision needs at least one")


def without_mask(annotations: Iterable[Annotation]) -> list[Annotation]:
    """Return the annotations that have no mask."""
    return [entry for entry in annotations if not has_mask(entry.get("segmentation"))]


def mask_gap(tree: Mapping[str, Any]) -> str | None:
    """Explain why average precision of masks is undefined; None if every annotation has a mask."""
    lacking = [str(entry["id"]) for entry in without_mask(tree["annotations"])]
    if not lacking:
        return None
    return (
        f"{len(lacking):,} of {len(tree['annotations']):,} annotations have no mask "
        f"(ids {first_of(lacking)})"
    )


def indexed(tree: Mapping[str, Any]) -> Any:
    """Return pycocotools' index of an annotation tree, with its printing suppressed."""
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = dict(tree)
        coco.createIndex()
    return coco


def reason_to_leave_out(annotation: Annotation, size: Size) -> str | None:
    """Return why training does not use an annotation; None if it does.

    Args:
        annotation: Without faults.
        size: Height and width of its image.
    """
    if annotation.get("iscrowd", 0):
        return CROWDS
    x0, y0, x1, y1 = box_of(annotation, size)
    narrow = x1 - x0 < MIN_BOX_SIDE_PIXELS or y1 - y0 < MIN_BOX_SIDE_PIXELS
    return NO_AREA if narrow else None
