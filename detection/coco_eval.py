"""Average precision of boxes and masks, by pycocotools."""

import contextlib
import io
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pycocotools.cocoeval import COCOeval

from detection.coco import first_of, indexed
from detection.masks import polygons

logger = logging.getLogger(__name__)

Prediction = dict[str, Any]
"""COCO's result format: image_id, category_id, score, bbox [x, y, width, height] and
segmentation, a compressed run-length code."""

IOU_TYPES = ("bbox", "segm")
METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl")
# The most of an image and category that COCO's metrics look at.
_MOST_PER_CATEGORY = 100
# pycocotools' mark for what no annotated object has.
_UNDEFINED = -1.0


@dataclass(frozen=True)
class Evaluation:
    """COCO's metrics, as percentages."""

    metrics: dict[str, float]
    """``bbox_AP``, … ``segm_APl``; without those of a size that no annotated object has."""
    by_category: list[dict[str, Any]]
    """By rising category id: ``id``, ``name``, ``num_objects`` (crowds not counted), ``bbox_AP``
    and ``segm_AP``; None where there is no object."""
    notes: tuple[str, ...]
    """What COCO's metrics leave out of the count, one sentence each."""


def evaluate(
    tree: Mapping[str, Any],
    predictions: Sequence[Prediction],
    iou_types: Sequence[str] = IOU_TYPES,
) -> dict[str, float]:
    """Compute the metrics of ``evaluate_in_detail`` alone."""
    return evaluate_in_detail(tree, predictions, iou_types).metrics


def evaluate_in_detail(
    tree: Mapping[str, Any],
    predictions: Sequence[Prediction],
    iou_types: Sequence[str] = IOU_TYPES,
) -> Evaluation:
    """Compute COCO's metrics over every image of an annotation file, and AP by category.

    Args:
        tree: The annotation file's content.
        predictions: Detections with the file's own image and category ids.
        iou_types: ``bbox``, ``segm`` or both; the predictions have what they compare.

    Returns:
        The numbers. Without any detection all are 0. What they leave out is logged, too.
    """
    if not predictions:
        logger.warning("the detector found nothing: average precision is 0")
    notes = tuple(_left_out(tree, predictions))
    for note in notes:
        logger.warning("%s", note)
    complete = with_areas(tree)
    truth = indexed(complete)
    num_objects = Counter(
        annotation["category_id"]
        for annotation in complete["annotations"]
        if not annotation["iscrowd"]
    )
    metrics: dict[str, float] = {}
    categories = sorted(tree["categories"], key=lambda category: int(category["id"]))
    by_category: list[dict[str, Any]] = [
        {"id": entry["id"], "name": entry["name"], "num_objects": num_objects[entry["id"]]}
        for entry in categories
    ]
    for iou_type in iou_types:
        evaluation = _run(truth, predictions, iou_type)
        for name, value in zip(METRICS, evaluation.stats, strict=False):
            if value != _UNDEFINED:
                metrics[f"{iou_type}_{name}"] = 100 * float(value)
        for index, entry in enumerate(by_category):
            entry[f"{iou_type}_AP"] = _category_ap(evaluation, index)
    return Evaluation(metrics, by_category, notes)


def _left_out(tree: Mapping[str, Any], predictions: Sequence[Prediction]) -> Iterator[str]:
    """Yield what COCO's definition of average precision does not count."""
    with_objects = {entry["category_id"] for entry in tree["annotations"]}
    names = {entry["id"]: entry["name"] for entry in tree["categories"]}
    found = Counter(entry["category_id"] for entry in predictions)
    absent = sorted(found.keys() - with_objects)
    if absent:
        yield (
            f"{sum(found[number] for number in absent):,} detections do not count, as their "
            f"categories have no object: {first_of([names[number] for number in absent])}"
        )
    per_image = Counter((entry["image_id"], entry["category_id"]) for entry in predictions)
    surplus = sum(max(0, count - _MOST_PER_CATEGORY) for count in per_image.values())
    if surplus:
        yield (
            f"{surplus:,} detections do not count, being behind the {_MOST_PER_CATEGORY} with the "
            "highest scores of their image and category"
        )


def _run(truth: Any, predictions: Sequence[Prediction], iou_type: str) -> Any:
    # Handed boxes and masks together, pycocotools takes a detection's area from its box, and the
    # masks' APs, APm and APl are then of another quantity than the annotations' areas.
    dropped = "segmentation" if iou_type == "bbox" else "bbox"
    entries = [
        {key: value for key, value in prediction.items() if key != dropped}
        for prediction in predictions
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        found = truth.loadRes(entries) if entries else indexed({**truth.dataset, "annotations": []})
        evaluation = COCOeval(truth, found, iou_type)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


def _category_ap(evaluation: Any, index: int) -> float | None:
    """Average precision of the category of that rank over all sizes, in percent."""
    # Thresholds, recalls, categories, sizes (all first), numbers of detections (most last).
    precision = evaluation.eval["precision"][:, :, index, 0, -1]
    defined = precision[precision > _UNDEFINED]
    return 100 * float(defined.mean()) if defined.size else None


def with_areas(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Fill in what pycocotools requires and custom sets often lack; drop what it trips over.

    Annotations are numbered from 1: pycocotools notes a match by the annotation's id and takes
    id 0 for no match.
    """
    annotations = []
    for number, annotation in enumerate(tree["annotations"], start=1):
        _, _, width, height = annotation["bbox"]
        complete = {"iscrowd": 0, "area": width * height, **annotation, "id": number}
        if isinstance(annotation.get("segmentation"), list):
            complete["segmentation"] = polygons(annotation["segmentation"])
        annotations.append(complete)
    return {**tree, "annotations": annotations}
