"""Average precision of boxes and masks, by pycocotools."""

import contextlib
import io
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from pycocotools.cocoeval import COCOeval

from detection.coco import indexed

logger = logging.getLogger(__name__)

Prediction = dict[str, Any]
"""COCO's result format: image_id, category_id, score, bbox [x, y, width, height] and
segmentation, a compressed run-length code."""

IOU_TYPES = ("bbox", "segm")
METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl")
# pycocotools' mark for a size that no annotated object has.
_UNDEFINED = -1.0


def evaluate(tree: Mapping[str, Any], predictions: Sequence[Prediction]) -> dict[str, float]:
    """Compute COCO's metrics over every image of an annotation file.

    Args:
        tree: The annotation file's content.
        predictions: Detections with the file's own image and category ids.

    Returns:
        ``bbox_AP``, … ``segm_APl`` as percentages. A size that no annotated object has is
        left out: its average precision is not defined. Without any detection all are 0.
    """
    if not predictions:
        logger.warning("the detector found nothing: average precision is 0")
    truth = indexed(_with_areas(tree))
    metrics: dict[str, float] = {}
    for iou_type in IOU_TYPES:
        stats = _stats(truth, predictions, iou_type)
        for name, value in zip(METRICS, stats, strict=False):
            if value != _UNDEFINED:
                metrics[f"{iou_type}_{name}"] = 100 * float(value)
    return metrics


def _stats(truth: Any, predictions: Sequence[Prediction], iou_type: str) -> Sequence[float]:
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
    stats: Sequence[float] = evaluation.stats
    return stats


def _with_areas(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Fill in what pycocotools requires and custom sets often lack."""
    annotations = []
    for annotation in tree["annotations"]:
        _, _, width, height = annotation["bbox"]
        annotations.append({"iscrowd": 0, "area": width * height, **annotation})
    return {**tree, "annotations": annotations}
