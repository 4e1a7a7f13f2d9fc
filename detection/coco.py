"""COCO-format data sets: what their files must hold, and what of them is used."""

import contextlib
import io
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pycocotools.coco import COCO

from detection.coco_format import read_tree, sort_out
from detection.masks import has_mask
from rsa_pretrain.errors import UserError
from rsa_pretrain.read_rules import DEFAULT_RULES, ReadRules

logger = logging.getLogger(__name__)

Annotation = Mapping[str, Any]

# A narrower box has no defined regression target once it is stored in float32.
MIN_BOX_SIDE_PIXELS = 0.01
CROWDS = "crowds"
NO_AREA = "boxes without area"
NO_MASK = "instances without a mask"
_NAMED_IN_ERRORS = 5


@dataclass(frozen=True)
class CocoSet:
    """One annotation file whose images are all there."""

    annotations_path: Path
    images_dir: Path
    tree: dict[str, Any]
    """The annotation file's content."""
    rules: ReadRules = DEFAULT_RULES
    """How the images are read."""

    @property
    def category_ids(self) -> list[int]:
        """The file's category ids, rising; label = index + 1, so gaps close and 0 is background."""
        return sorted(category["id"] for category in self.tree["categories"])

    @property
    def category_names(self) -> dict[int, str]:
        """The name of each category id."""
        return {category["id"]: category["name"] for category in self.tree["categories"]}

    @property
    def images(self) -> list[dict[str, Any]]:
        """Every image's entry, by rising id."""
        return sorted(self.tree["images"], key=lambda image: int(image["id"]))


@dataclass(frozen=True)
class TrainingImage:
    """An image with the instances that training uses."""

    path: Path
    height: int
    width: int
    annotations: tuple[Annotation, ...]
    """At least one; their boxes lie inside the image."""
    labels: tuple[int, ...]
    """Contiguous label of each, from 1."""
    rules: ReadRules = DEFAULT_RULES
    """How it is read."""

    @property
    def is_wide(self) -> bool:
        """Whether it is wider than high."""
        return self.width > self.height


def read_sound_tree(path: Path) -> dict[str, Any]:
    """Read an annotation file of which every entry can be used.

    Raises:
        UserError: If ``read_tree`` refuses it, or an entry is faulty; the first kind of fault is
            named, with some of the entries that have it.
    """
    tree, faults = sort_out(read_tree(path))
    if faults:
        what = faults[0].what
        entries = first_of([fault.entry for fault in faults if fault.what == what])
        others = sum(fault.what != what for fault in faults)
        also = f"; and {others:,} faults of other kinds (see rsa-detect data-check)"
        raise UserError(f"'{path}' has {what}: {entries}{also if others else ''}")
    return tree


def open_coco(annotations: Path, images_dir: Path, rules: ReadRules = DEFAULT_RULES) -> CocoSet:
    """Read an annotation file and check it and its images.

    Args:
        annotations: COCO-format JSON.
        images_dir: Folder that the file names are relative to.
        rules: How the images are read.

    Raises:
        UserError: If ``read_sound_tree`` refuses the file, or images are missing.
    """
    tree = read_sound_tree(annotations)
    names = [image["file_name"] for image in tree["images"]]
    missing = [name for name in names if not (images_dir / name).is_file()]
    if missing:
        raise UserError(
            f"{len(missing)} of {len(names)} images of '{annotations}' are not in "
            f"'{images_dir}': {first_of(missing)}"
        )
    return CocoSet(annotations, images_dir, tree, rules)


def training_images(coco: CocoSet) -> list[TrainingImage]:
    """Return the images that have something to learn from, by rising id.

    Left out, and counted in one log line: crowds, boxes without area inside the image,
    instances without a mask, and then images without instances.

    Raises:
        UserError: If no image is left.
    """
    labels = {category: index for index, category in enumerate(coco.category_ids, start=1)}
    by_image: dict[int, list[Annotation]] = {}
    left_out: Counter[str] = Counter()
    sizes = {image["id"]: (image["width"], image["height"]) for image in coco.tree["images"]}
    for annotation in coco.tree["annotations"]:
        reason = reason_to_leave_out(annotation, *sizes[annotation["image_id"]])
        if reason is None:
            by_image.setdefault(annotation["image_id"], []).append(annotation)
        else:
            left_out[reason] += 1
    usable = [
        TrainingImage(
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
    if not usable:
        raise UserError(f"'{coco.annotations_path}' has no image with a usable instance")
    left_out["images without instances"] = len(sizes) - len(usable)
    counts = ", ".join(f"{count} {reason}" for reason, count in left_out.items() if count)
    logger.info("training on %d images; left out: %s", len(usable), counts or "nothing")
    return usable


def check_test_set(coco: CocoSet) -> None:
    """Refuse a test set on which average precision of boxes and masks is not defined.

    Raises:
        UserError: If it has no object, or an annotation without a mask.
    """
    check_objects(coco.annotations_path, coco.tree)
    check_masks(coco.annotations_path, coco.tree)


def check_objects(path: Path, tree: Mapping[str, Any]) -> None:
    """Refuse annotations in which there is nothing to be found."""
    if all(annotation.get("iscrowd", 0) for annotation in tree["annotations"]):
        raise UserError(f"'{path}' has no object to be found; average precision needs one")


def check_masks(path: Path, tree: Mapping[str, Any]) -> None:
    """Refuse annotations of which one has no mask."""
    lacking = [
        str(entry["id"]) for entry in tree["annotations"] if not has_mask(entry.get("segmentation"))
    ]
    if lacking:
        raise UserError(
            f"'{path}': {len(lacking)} annotations have no segmentation, which mask AP needs: "
            f"ids {first_of(lacking)}"
        )


def clipped_box(annotation: Annotation, width: int, height: int) -> tuple[float, ...]:
    """Return an annotation's box as x0, y0, x1, y1 inside the image, in pixels."""
    x, y, box_width, box_height = annotation["bbox"]
    return (
        min(max(x, 0.0), width),
        min(max(y, 0.0), height),
        min(max(x + box_width, 0.0), width),
        min(max(y + box_height, 0.0), height),
    )


def indexed(tree: Mapping[str, Any]) -> Any:
    """Return pycocotools' view of an annotation tree, without what it prints."""
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = dict(tree)
        coco.createIndex()
    return coco


def reason_to_leave_out(annotation: Annotation, width: int, height: int) -> str | None:
    """Say why training does not use an annotation; None if it does.

    Args:
        annotation: Without faults.
        width: Of its image, in pixels.
        height: Of its image.
    """
    if annotation.get("iscrowd", 0):
        return CROWDS
    x0, y0, x1, y1 = clipped_box(annotation, width, height)
    if x1 - x0 < MIN_BOX_SIDE_PIXELS or y1 - y0 < MIN_BOX_SIDE_PIXELS:
        return NO_AREA
    return None if has_mask(annotation.get("segmentation")) else NO_MASK


def first_of(names: Sequence[str], limit: int = _NAMED_IN_ERRORS) -> str:
    """Name the first few, and count the rest."""
    more = len(names) - limit
    return ", ".join(names[:limit]) + (f", and {more:,} more" if more > 0 else "")
