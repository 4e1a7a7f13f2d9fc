"""Read files of predictions in COCO's result format."""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from detection.coco.evaluation import IOU_TYPES, Prediction
from detection.coco.json_file import read_json
from detection.coco.masks import Size, are_coordinates, code_fault, encode_mask, has_mask
from detection.coco.precision import KEY_OF
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.name_lists import first_of

_log = logging.getLogger(__name__)


def read_predictions(path: Path, tree: Mapping[str, Any]) -> list[Prediction]:
    """Read predictions of any detector for an annotation file.

    Args:
        path: JSON, a list of image_id, category_id, score, and bbox, segmentation or both.
        tree: The annotation file's content.

    Returns:
        The predictions, their masks as compressed run-length codes.

    Raises:
        UserError: If the file cannot be read or a prediction cannot be evaluated.
    """
    entries, notes = read_json(path, "predictions")
    if not isinstance(entries, list):
        raise UserError(f"predictions '{path}' are not COCO results: expected a JSON list")
    for note in notes:
        _log.warning("'%s': %s", path, note)
    sizes = {image["id"]: (image["height"], image["width"]) for image in tree["images"]}
    categories = {category["id"] for category in tree["categories"]}
    faults = [
        f"[{position}] {reason}"
        for position, entry in enumerate(entries)
        for reason in _faults(entry, sizes, categories)
    ]
    if faults:
        raise UserError(f"predictions '{path}' cannot be evaluated: {first_of(faults)}")
    return [_with_code(entry, sizes) for entry in entries]


def iou_types_of(predictions: Sequence[Prediction]) -> list[str]:
    """Return the IoU types that every prediction supports: ``bbox``, ``segm`` or both."""
    return [kind for kind in IOU_TYPES if all(KEY_OF[kind] in entry for entry in predictions)]


def _faults(entry: Any, sizes: Mapping[int, Size], categories: set[int]) -> Iterator[str]:
    if not isinstance(entry, dict):
        yield "is not a JSON object"
        return
    for key, known in (("image_id", sizes), ("category_id", categories)):
        value = entry.get(key)
        if type(value) is not int or value not in known:
            yield f"has {key} {json.dumps(value)[:40]}, which the annotations do not define"
            return
    if not are_coordinates([entry.get("score")]):
        yield "has no score"
    if not entry.keys() & set(KEY_OF.values()):
        yield "has neither bbox nor segmentation"
    box = entry.get("bbox", [0, 0, 0, 0])
    if not isinstance(box, list) or len(box) != 4 or not are_coordinates(box):
        yield "has a bbox that is not [x, y, width, height]"
    if "segmentation" in entry:
        if not has_mask(entry["segmentation"]):
            yield "has a segmentation that is not a mask"
        reason = code_fault(entry["segmentation"], sizes[entry["image_id"]])
        if reason is not None:
            yield f"has a run-length code {reason}"


def _with_code(entry: Prediction, sizes: Mapping[int, Size]) -> Prediction:
    if "segmentation" not in entry:
        return entry
    code = encode_mask(entry["segmentation"], sizes[entry["image_id"]])
    return {**entry, "segmentation": code}
