"""Compute precision at COCO's overlaps and recalls by faster-coco-eval or else pycocotools.

Their results are bitwise equal.
"""

import contextlib
import io
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detection.coco.sets import indexed
from rsa_pretrain.plumbing.errors import UserError

PrecisionArray: TypeAlias = NDArray[np.float64]
"""(overlaps, recalls, categories by rising id, sizes: all, small, medium, large); -1 where there
is no object."""

CocoEvaluator: TypeAlias = Callable[[Any, Any, str, int], PrecisionArray]
"""Takes annotations, detections, the IoU type and the number of detections that count."""

KEY_OF = {"bbox": "bbox", "segm": "segmentation"}
_COUNTED = ("id", "area", "iscrowd")
# pycocotools adds this to the number of detections that it divides by. It changes no quotient but
# that by 1.
_ADDED = np.spacing(1)
# For any number of objects up to 10^8, one lies between the recalls of one and of two of them.
_RECALLS_OF_FEW = 1.5 ** np.arange(-46.0, 2.0)


def precision(
    tree: Mapping[str, Any],
    predictions: Sequence[Mapping[str, Any]],
    iou_type: str,
    max_detections: int,
) -> PrecisionArray:
    """Compare detections with annotations.

    Args:
        tree: The annotation file's content; every annotation has an area, a crowd flag and an id
            above 0.
        predictions: Detections with the file's own image and category ids.
        iou_type: ``bbox`` or ``segm``.
        max_detections: Number of highest-scoring detections that count per image and category.

    Raises:
        UserError: If faster-coco-eval is installed and broken.
    """
    compared = prepare(tree, predictions, iou_type, max_detections)
    run = evaluator()
    with contextlib.redirect_stdout(io.StringIO()):
        return run(*compared)


def prepare(
    tree: Mapping[str, Any],
    predictions: Sequence[Mapping[str, Any]],
    iou_type: str,
    max_detections: int,
) -> tuple[COCO, COCO, str, int]:
    """Turn the arguments of ``precision`` into those of an evaluator.

    Images and categories are numbered from 0 by rising id.
    """
    images, categories = (_ranks(tree[section]) for section in ("images", "categories"))

    # Handed boxes and masks together, pycocotools takes a detection's area from its box, and the
    # masks' APs, APm and APl then measure another quantity than the annotations' areas.
    # faster-coco-eval stores ids as float64, and obeys keys that are not part of COCO's format.
    def compared(entries: Sequence[Mapping[str, Any]], *keys: str) -> list[dict[str, Any]]:
        return [
            {
                "image_id": images[entry["image_id"]],
                "category_id": categories[entry["category_id"]],
                **{key: entry[key] for key in (KEY_OF[iou_type], *keys)},
            }
            for entry in entries
        ]

    truth = indexed(
        {
            "images": [{**image, "id": images[image["id"]]} for image in tree["images"]],
            "categories": [{"id": number} for number in categories.values()],
            "annotations": compared(tree["annotations"], *_COUNTED),
        }
    )
    # faster-coco-eval reserves memory for as many detections of every image as may count.
    found_together = Counter((entry["image_id"], entry["category_id"]) for entry in predictions)
    most = min(max_detections, max(found_together.values(), default=1))
    entries = compared(predictions, "score")
    with contextlib.redirect_stdout(io.StringIO()):
        found = truth.loadRes(entries) if entries else indexed({**truth.dataset, "annotations": []})
    return truth, found, iou_type, most


def evaluator() -> CocoEvaluator:
    """Return the evaluator to use in this installation."""
    return by_pycocotools if find_spec("faster_coco_eval") is None else by_faster_coco_eval


def by_pycocotools(truth: Any, found: Any, iou_type: str, max_detections: int) -> PrecisionArray:
    """Compute the precision by pycocotools."""
    return _accumulated(COCOeval(truth, found, iou_type), max_detections)


def by_faster_coco_eval(
    truth: Any, found: Any, iou_type: str, max_detections: int
) -> PrecisionArray:
    """Compute the precision by faster-coco-eval, rounded as pycocotools rounds it.

    Where the first detection is right and the second wrong, pycocotools' precision is the number
    before 1 (see ``_ADDED``). Precision is then below 1 at every recall that one object does not
    reach, which distinguishes these cases from several right ones.
    """
    try:
        from faster_coco_eval import COCOeval_faster
    except ImportError as error:
        raise UserError(
            f"faster-coco-eval is installed and cannot be imported ({error}); repair its "
            "installation, or uninstall it to evaluate by pycocotools"
        ) from None
    evaluation = COCOeval_faster(truth, found, iou_type, print_function=_keep_quiet)
    num_recalls = len(evaluation.params.recThrs)
    evaluation.params.recThrs = np.concatenate([evaluation.params.recThrs, _RECALLS_OF_FEW])
    both = _accumulated(evaluation, max_detections)
    values, of_few = both[:, :num_recalls], both[:, num_recalls:]
    one_object = 1 / np.maximum(_num_objects(truth, evaluation.params.areaRng), 1)
    places = np.searchsorted(_RECALLS_OF_FEW, one_object, side="right")
    beyond_one = np.take_along_axis(of_few, places[None, None], axis=1)
    values[(values == 1) & (beyond_one < 1)] = 1 / (1 + _ADDED)
    return values


def _accumulated(evaluation: Any, max_detections: int) -> PrecisionArray:
    evaluation.params.maxDets = [max_detections]
    evaluation.evaluate()
    evaluation.accumulate()
    values: PrecisionArray = evaluation.eval["precision"][..., 0]
    return values


def _num_objects(truth: Any, sizes: Sequence[Sequence[float]]) -> NDArray[np.int64]:
    """Count the objects of each category and size, (categories, sizes); crowds are not counted."""
    objects = [entry for entry in truth.dataset["annotations"] if not entry["iscrowd"]]
    areas = np.array([entry["area"] for entry in objects], float)
    ranks = np.array([entry["category_id"] for entry in objects], int)
    counts = [
        np.bincount(ranks[(low <= areas) & (areas <= high)], minlength=len(truth.cats))
        for low, high in sizes
    ]
    return np.stack(counts, axis=1)


def _ranks(entries: Sequence[Mapping[str, Any]]) -> dict[int, int]:
    """Number entries from 0 by rising id."""
    return {number: rank for rank, number in enumerate(sorted(entry["id"] for entry in entries))}


def _keep_quiet(*_: Any) -> None:
    """Discard a line that faster-coco-eval would log."""
