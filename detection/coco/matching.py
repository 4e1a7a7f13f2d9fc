"""Match detections with annotated objects by COCO's rule."""

from collections.abc import Sequence

from pycocotools import mask as mask_codec

from detection.coco.counted_objects import is_counted
from detection.coco.evaluation import Prediction
from detection.coco.sets import Annotation

MATCHING_IOU = 0.5


def match(truth: Sequence[Annotation], found: Sequence[Prediction]) -> list[int | None]:
    """Match each detection of an image to the index of the object it finds, or to None.

    This is COCO's box matching at IoU 0.5: in turn, each detection takes the unmatched object of
    its category with the largest overlap, and one that evaluation ignores only for want of another;
    a crowd may be taken by several. In order of descending score, a match does not depend on a
    score threshold.

    Args:
        truth: Annotations.
        found: Detections with boxes, by descending score.
    """
    matches: list[int | None] = [None] * len(found)
    if not truth or not found:
        return matches
    free = [True] * len(truth)
    crowds = [bool(entry.get("iscrowd", 0)) for entry in truth]
    count = list(map(is_counted, truth))
    boxes = ([entry["bbox"] for entry in entries] for entries in (found, truth))
    overlaps = mask_codec.iou(*boxes, crowds)
    for index, detection in enumerate(found):
        candidates = [
            (count[place], overlaps[index, place], place)
            for place, entry in enumerate(truth)
            if free[place]
            and entry["category_id"] == detection["category_id"]
            and overlaps[index, place] >= MATCHING_IOU
        ]
        if candidates:
            *_, place = max(candidates)
            matches[index] = place
            free[place] = crowds[place]
    return matches
