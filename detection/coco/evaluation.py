"""Compute average precision of boxes and masks."""

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from detection.coco.counted_objects import counted_objects, is_difficult
from detection.coco.masks import polygons
from detection.coco.precision import PrecisionArray, precision
from rsa_eval.statistics.coco_precision import AVERAGED_OVERLAPS
from rsa_pretrain.plumbing.name_lists import first_of

_log = logging.getLogger(__name__)

Prediction = dict[str, Any]
"""COCO's result format: image_id, category_id, score, bbox [x, y, width, height] and
segmentation, a compressed run-length code."""

IOU_TYPES = ("bbox", "segm")
COCO_MAX_DETECTIONS = 100
"""Limit of detections per image and category in COCO's metrics."""
_BEYOND_EVERY_SIZE = 1e300
METRICS = tuple(AVERAGED_OVERLAPS)


@dataclass(frozen=True)
class Evaluation:
    """COCO's metrics, as percentages."""

    metrics: dict[str, float]
    """``bbox_AP``, … ``segm_APl``; without those of sizes that no annotated object has."""
    by_category: list[dict[str, Any]]
    """In order of category id: ``id``, ``name``, ``num_objects`` (neither crowds nor objects marked
    difficult), ``bbox_AP`` and ``segm_AP``; None where there is no object."""
    notes: tuple[str, ...]
    """Departures from COCO's count and detections left out, one sentence each."""


def evaluate(
    tree: Mapping[str, Any],
    predictions: Sequence[Prediction],
    iou_types: Sequence[str] = IOU_TYPES,
    max_detections: int = COCO_MAX_DETECTIONS,
) -> dict[str, float]:
    """Compute the metrics of ``evaluate_in_detail`` alone."""
    return evaluate_in_detail(tree, predictions, iou_types, max_detections).metrics


def evaluate_in_detail(
    tree: Mapping[str, Any],
    predictions: Sequence[Prediction],
    iou_types: Sequence[str] = IOU_TYPES,
    max_detections: int = COCO_MAX_DETECTIONS,
) -> Evaluation:
    """Compute COCO's metrics over every image of an annotation file, and AP by category.

    Objects marked ``difficult`` (PASCAL VOC's mark) are neither found nor missed: COCO's rule
    treats objects beyond a metric's sizes like that, and these count as beyond all. The IoU is that
    with any object, unlike a crowd's. A detection prefers an object that counts; a difficult object
    takes one detection, and another one on it is wrong.

    Args:
        tree: The annotation file's content.
        predictions: Detections with the file's own image and category ids.
        iou_types: ``bbox``, ``segm`` or both; every prediction must have them.
        max_detections: Number that count per image and category, if above COCO's 100; a detector
            that keeps fewer is measured by COCO's rule.

    Returns:
        The numbers. Without any detection all are 0.

    Raises:
        UserError: If faster-coco-eval is installed and broken.
    """
    if not predictions:
        _log.warning("the detector found nothing: average precision is 0")
    limit = max(COCO_MAX_DETECTIONS, max_detections)
    notes = tuple(_differences(tree, predictions, limit))
    complete = with_areas(tree)
    num_objects = Counter(entry["category_id"] for entry in counted_objects(tree))
    metrics: dict[str, float] = {}
    categories = sorted(tree["categories"], key=lambda category: int(category["id"]))
    by_category: list[dict[str, Any]] = [
        {"id": entry["id"], "name": entry["name"], "num_objects": num_objects[entry["id"]]}
        for entry in categories
    ]
    for iou_type in iou_types:
        values = precision(complete, predictions, iou_type, limit)
        for name, (overlaps, size) in AVERAGED_OVERLAPS.items():
            value = _average(values[overlaps, :, :, size])
            if value is not None:
                metrics[f"{iou_type}_{name}"] = value
        for index, entry in enumerate(by_category):
            entry[f"{iou_type}_AP"] = _average(values[:, :, index, 0])
    return Evaluation(metrics, by_category, notes)


def headline(metrics: Mapping[str, float]) -> str:
    """Return the name of the main metric: AP of masks, or of boxes if there are no masks."""
    return "segm_AP" if "segm_AP" in metrics else "bbox_AP"


def _differences(
    tree: Mapping[str, Any], predictions: Sequence[Prediction], limit: int
) -> Iterator[str]:
    """Yield departures from COCO's count, and the detections that it leaves out."""
    if limit > COCO_MAX_DETECTIONS:
        yield (
            f"average precision counts {limit:,} detections an image and category, where COCO's "
            f"counts {COCO_MAX_DETECTIONS}"
        )
    num_difficult = sum(map(is_difficult, tree["annotations"]))
    if num_difficult:
        yield (
            f"{num_difficult:,} objects marked difficult count as neither found nor missed, by "
            "PASCAL VOC's rule"
        )
    with_objects = {entry["category_id"] for entry in counted_objects(tree)}
    names = {entry["id"]: entry["name"] for entry in tree["categories"]}
    found = Counter(entry["category_id"] for entry in predictions)
    absent = sorted(found.keys() - with_objects)
    if absent:
        yield (
            f"{sum(found[number] for number in absent):,} detections are not counted, as their "
            f"categories have no object: {first_of([names[number] for number in absent])}"
        )
    per_image = Counter((entry["image_id"], entry["category_id"]) for entry in predictions)
    surplus = sum(max(0, count - limit) for count in per_image.values())
    if surplus:
        yield (
            f"{surplus:,} detections are not counted: they rank below the {limit:,} highest scores "
            "of their image and category"
        )


def _average(values: PrecisionArray) -> float | None:
    """Average over entries with an object, in percent; None if there are none."""
    defined = values[values >= 0]
    return 100 * float(defined.mean()) if defined.size else None


def with_areas(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Add keys that pycocotools requires and custom sets often lack; drop parts it fails on.

    Annotations are numbered from 1: pycocotools marks a match by the annotation's id and takes id 0
    for no match. It overwrites the key ``ignore`` by ``iscrowd``, but ignores objects beyond the
    sizes of a metric: the area of difficult objects is beyond all.
    """
    annotations = []
    for number, annotation in enumerate(tree["annotations"], start=1):
        _, _, width, height = annotation["bbox"]
        complete = {"iscrowd": 0, "area": width * height, **annotation, "id": number}
        if isinstance(annotation.get("segmentation"), list):
            complete["segmentation"] = polygons(annotation["segmentation"])
        if is_difficult(annotation):
            complete["area"] = _BEYOND_EVERY_SIZE
        annotations.append(complete)
    return {**tree, "annotations": annotations}
