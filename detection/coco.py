"""COCO-format data sets: what their files must hold, and what of them is used."""

import contextlib
import io
import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as mask_codec
from pycocotools.coco import COCO

from rsa_pretrain.errors import UserError

logger = logging.getLogger(__name__)

Annotation = Mapping[str, Any]

# A narrower box has no defined regression target once it is stored in float32.
MIN_BOX_SIDE_PIXELS = 0.01
_NAMED_IN_ERRORS = 5
_REQUIRED = {
    "images": {"id": int, "file_name": str, "height": int, "width": int},
    "annotations": {"id": int, "image_id": int, "category_id": int, "bbox": list},
    "categories": {"id": int, "name": str},
}


@dataclass(frozen=True)
class CocoSet:
    """One annotation file whose images are all there."""

    annotations_path: Path
    images_dir: Path
    tree: dict[str, Any]
    """The annotation file's content."""

    @property
    def category_ids(self) -> list[int]:
        """The file's category ids, rising; label = index + 1, so gaps close and 0 is background."""
        return sorted(category["id"] for category in self.tree["categories"])

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


def open_coco(annotations: Path, images_dir: Path) -> CocoSet:
    """Read an annotation file and check it and its images.

    Args:
        annotations: COCO-format JSON.
        images_dir: Folder that the file names are relative to.

    Raises:
        UserError: If the file is unreadable or not of the format, has no categories or images,
            an id twice, an annotation of an unknown image or category, or images are missing.
    """
    tree = _read_json(annotations)
    for section, keys in _REQUIRED.items():
        _check_section(tree, section, keys, annotations)
    for section in ("images", "categories"):
        if not tree[section]:
            raise UserError(f"'{annotations}' lists no {section}")
    image_ids = {image["id"] for image in tree["images"]}
    category_ids = {category["id"] for category in tree["categories"]}
    for annotation in tree["annotations"]:
        for key, known in (("image_id", image_ids), ("category_id", category_ids)):
            if annotation[key] not in known:
                raise UserError(
                    f"'{annotations}': annotation {annotation['id']} has {key} "
                    f"{annotation[key]!r}, which the file does not define"
                )
    names = [image["file_name"] for image in tree["images"]]
    missing = [name for name in names if not (images_dir / name).is_file()]
    if missing:
        raise UserError(
            f"{len(missing)} of {len(names)} images of '{annotations}' are not in "
            f"'{images_dir}': {_head(missing)}"
        )
    return CocoSet(annotations, images_dir, tree)


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
        reason = _reason_to_leave_out(annotation, *sizes[annotation["image_id"]])
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
    """Refuse a test set on which average precision of masks is not defined.

    Raises:
        UserError: If it has no object, or an annotation without a mask.
    """
    path, annotations = coco.annotations_path, coco.tree["annotations"]
    if all(annotation.get("iscrowd", 0) for annotation in annotations):
        raise UserError(f"'{path}' has no object to be found; average precision needs one")
    lacking = [str(entry["id"]) for entry in annotations if not _has_mask(entry)]
    if lacking:
        raise UserError(
            f"'{path}': {len(lacking)} annotations have no segmentation, which mask AP needs: "
            f"ids {_head(lacking)}"
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


def render_mask(
    segmentation: Any, size: tuple[int, int], new_size: tuple[int, int]
) -> NDArray[np.uint8]:
    """Rasterise a segmentation at another image size.

    Args:
        segmentation: Polygons, or a run-length code, compressed or not.
        size: Height and width of the annotated image.
        new_size: Height and width of the mask; polygons are scaled before they are drawn.

    Returns:
        0 and 1, of ``new_size``.
    """
    height, width = new_size
    if isinstance(segmentation, list):
        scale = (width / size[1], height / size[0])
        scaled = [
            [value * scale[index % 2] for index, value in enumerate(polygon)]
            for polygon in segmentation
            if _is_polygon(polygon)
        ]
        codes = mask_codec.frPyObjects(scaled, height, width)
        merged: NDArray[np.uint8] = mask_codec.decode(mask_codec.merge(codes))
        return merged
    if isinstance(segmentation["counts"], list):
        segmentation = mask_codec.frPyObjects(segmentation, *size)
    full: NDArray[np.uint8] = mask_codec.decode(segmentation)
    rows = (np.arange(height) + 0.5) * size[0] / height
    columns = (np.arange(width) + 0.5) * size[1] / width
    resampled: NDArray[np.uint8] = full[rows.astype(int)][:, columns.astype(int)]
    return resampled


def indexed(tree: Mapping[str, Any]) -> Any:
    """Return pycocotools' view of an annotation tree, without what it prints."""
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = dict(tree)
        coco.createIndex()
    return coco


def _read_json(path: Path) -> dict[str, Any]:
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read annotations '{path}': {error.strerror}") from None
    except ValueError:
        raise UserError(f"annotations '{path}' are not JSON") from None
    if not isinstance(tree, dict):
        raise UserError(f"annotations '{path}' are not COCO format: expected a JSON object")
    return tree


def _check_section(
    tree: Mapping[str, Any], section: str, keys: Mapping[str, type], path: Path
) -> None:
    entries = tree.get(section)
    if not isinstance(entries, list):
        raise UserError(f"annotations '{path}' are not COCO format: no list '{section}'")
    seen = set()
    for position, entry in enumerate(entries):
        wrong = [
            key
            for key, kind in keys.items()
            if not isinstance(entry, dict) or not isinstance(entry.get(key), kind)
        ]
        if wrong:
            raise UserError(f"'{path}': {section}[{position}] has no valid {', '.join(wrong)}")
        if "bbox" in keys and not _is_box(entry["bbox"]):
            raise UserError(
                f"'{path}': {section}[{position}] has bbox {entry['bbox']!r}; "
                "expected [x, y, width, height]"
            )
        if entry["id"] in seen:
            raise UserError(f"'{path}': {section} has the id {entry['id']!r} twice")
        seen.add(entry["id"])


def _is_box(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 4
        and all(isinstance(number, int | float) for number in value)
        and bool(np.isfinite(value).all())
    )


def _is_polygon(value: Any) -> bool:
    return isinstance(value, list) and len(value) >= 6 and len(value) % 2 == 0


def _reason_to_leave_out(annotation: Annotation, width: int, height: int) -> str | None:
    if annotation.get("iscrowd", 0):
        return "crowds"
    x0, y0, x1, y1 = clipped_box(annotation, width, height)
    if x1 - x0 < MIN_BOX_SIDE_PIXELS or y1 - y0 < MIN_BOX_SIDE_PIXELS:
        return "boxes without area"
    return None if _has_mask(annotation) else "instances without a mask"


def _has_mask(annotation: Annotation) -> bool:
    segmentation = annotation.get("segmentation")
    if isinstance(segmentation, list):
        return any(_is_polygon(polygon) for polygon in segmentation)
    return isinstance(segmentation, dict) and {"counts", "size"} <= segmentation.keys()


def _head(names: Sequence[str]) -> str:
    more = len(names) - _NAMED_IN_ERRORS
    return ", ".join(names[:_NAMED_IN_ERRORS]) + (f", and {more} more" if more > 0 else "")
