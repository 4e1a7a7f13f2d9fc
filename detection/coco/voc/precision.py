"""Compute PASCAL VOC's average precision: of eleven recalls (2007), or the area (2010 and later).

Everingham et al. 2010 (The PASCAL Visual Object Classes Challenge), Sec. 4.2, with the rule of the
development kit's ``VOCevaldet.m``. By falling score, each detection is compared with the object of
its image and class with which its IoU is highest. From the threshold on (the kit tests >=), the
first detection of an object is right and every further one wrong; detections of a difficult object
count neither way, and difficult objects need not be found.

The kit's boxes include their last pixel, so it adds 1 to each side. Boxes here end at that pixel's
right edge, [xmin - 1, xmax), and their ordinary IoU is the same number.

detectron2's ``PascalVOCDetectionEvaluator``, whose AP is the mean over the IoU thresholds 0.50 to
0.95, AP50 and AP75 all are of eleven recalls on VOC2007, differs in four details: a match needs an
IoU above the threshold; recalls 0.3, 0.6 and 0.7, reached exactly, count as missed by rounding;
scores are rounded to 3 decimals and boxes to 1 before matching; and equal scores are in no
particular order. Here they rank by image id and then as given, like in COCO's evaluation.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as mask_codec

from detection.coco.counted_objects import counted_objects, is_counted
from detection.coco.evaluation import Prediction
from detection.coco.sets import Annotation

# Divided like IoUs are, so that one that equals a threshold compares as equal.
VOC_IOUS = np.arange(50, 100, 5) / 100
"""IoU thresholds over which AP is averaged, COCO's ten."""
_NUM_RECALLS = 11

VocAP: TypeAlias = NDArray[np.float64]
"""AP from 0 to 1, (categories by rising id, IoU thresholds); NaN without an object."""


@dataclass(frozen=True)
class _RankedMatches:
    """The detections of a category by falling score, each with its best object."""

    ious: NDArray[np.float64]
    """Highest IoU of each detection with an object of its image, (D,); 0 without one."""
    objects: NDArray[np.intp]
    """That object's number, (D,)."""
    are_difficult: NDArray[np.bool_]
    """True if it is marked difficult, or a crowd, (D,)."""


def voc_precision(
    tree: Mapping[str, Any], predictions: Sequence[Prediction]
) -> tuple[VocAP, VocAP]:
    """Compute both kinds of average precision of boxes.

    Args:
        tree: The annotation file's content; crowds count as difficult objects.
        predictions: Detections with boxes and the file's own image and category ids; all count.

    Returns:
        AP of eleven recalls, and the area under the curve.
    """
    truth = _grouped(tree["annotations"])
    found = _grouped(sorted(predictions, key=lambda entry: int(entry["image_id"])))
    num_objects: dict[int, int] = defaultdict(int)
    for entry in counted_objects(tree):
        num_objects[entry["category_id"]] += 1
    categories = sorted(entry["id"] for entry in tree["categories"])
    eleven = np.full((len(categories), len(VOC_IOUS)), np.nan)
    area = eleven.copy()
    for row, category in enumerate(categories):
        total = num_objects[category]
        if not total:
            continue
        ranked = _ranked(truth[category], found[category])
        for column, threshold in enumerate(VOC_IOUS):
            are_right, are_wrong = _judge(ranked, threshold)
            hits = np.cumsum(are_right)[are_right]
            precision = hits / (hits + np.cumsum(are_wrong)[are_right])
            eleven[row, column] = eleven_point_ap(precision, total)
            area[row, column] = area_ap(precision, total)
    return eleven, area


def eleven_point_ap(precision: NDArray[np.float64], num_objects: int) -> float:
    """Average the best precision from each of the recalls 0, 0.1, … 1 on (VOC2007).

    Args:
        precision: At each object found, by falling score, (H,).
        num_objects: Objects to find, at least H and 1.
    """
    best = _best_from_each(precision)
    # In whole numbers: 3 of 10 objects are a recall of 0.3, which no float64 is.
    needed = [-(-tenths * num_objects // (_NUM_RECALLS - 1)) for tenths in range(_NUM_RECALLS)]
    reached = [best[max(hits, 1) - 1] for hits in needed if max(hits, 1) <= len(best)]
    return float(sum(reached)) / _NUM_RECALLS


def area_ap(precision: NDArray[np.float64], num_objects: int) -> float:
    """Return the area below the curve of best precision from each recall on (VOC2010 and later).

    Args:
        precision: At each object found, by falling score, (H,).
        num_objects: Objects to find, at least H and 1.
    """
    return float(_best_from_each(precision).sum()) / num_objects


def _best_from_each(precision: NDArray[np.float64]) -> NDArray[np.float64]:
    best: NDArray[np.float64] = np.maximum.accumulate(precision[::-1])[::-1]
    return best


def _judge(ranked: _RankedMatches, threshold: float) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return which detections are right and which are wrong at an IoU threshold, (D,) each."""
    are_on_objects = ranked.ious >= threshold
    are_neutral = are_on_objects & ranked.are_difficult
    places = np.flatnonzero(are_on_objects & ~are_neutral)
    _, firsts = np.unique(ranked.objects[places], return_index=True)
    are_right = np.zeros(len(ranked.ious), bool)
    are_right[places[firsts]] = True
    return are_right, ~are_right & ~are_neutral


def _ranked(
    truth: Mapping[int, Sequence[Annotation]], found: Mapping[int, Sequence[Prediction]]
) -> _RankedMatches:
    """Match one category's detections, in order of image, with its objects by image."""
    scores = [float(entry["score"]) for entries in found.values() for entry in entries]
    ious, objects, are_difficult = np.zeros(len(scores)), np.zeros(len(scores), int), []
    first_detection = first_object = 0
    for image_id, entries in found.items():
        own = truth.get(image_id, [])
        rows = slice(first_detection, first_detection + len(entries))
        first_detection = rows.stop
        if not own:
            are_difficult += [False] * len(entries)
            continue
        boxes = ([entry["bbox"] for entry in group] for group in (entries, own))
        overlaps = mask_codec.iou(*boxes, [False] * len(own))
        best = overlaps.argmax(axis=1)
        ious[rows], objects[rows] = overlaps.max(axis=1), first_object + best
        are_difficult += [not is_counted(own[place]) for place in best]
        first_object += len(own)
    order = np.argsort(-np.array(scores, float), kind="stable")
    return _RankedMatches(ious[order], objects[order], np.array(are_difficult, bool)[order])


def _grouped(entries: Sequence[Mapping[str, Any]]) -> dict[int, dict[int, list[Any]]]:
    """Group entries by category and image, in their order."""
    groups: dict[int, dict[int, list[Any]]] = defaultdict(lambda: defaultdict(list))
    for entry in entries:
        groups[entry["category_id"]][entry["image_id"]].append(entry)
    return groups
