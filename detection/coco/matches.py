"""Match detections once, so that resamples of the images can be evaluated without matching."""

import contextlib
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools.cocoeval import COCOeval

from detection.coco.evaluation import COCO_MAX_DETECTIONS, Prediction, with_areas
from detection.coco.precision import prepare
from rsa_eval.statistics.detection_matches import (
    NUM_OVERLAPS,
    NUM_SIZES,
    DetectionMatches,
    pack_flags,
)


def matches_of(
    tree: Mapping[str, Any],
    predictions: Sequence[Prediction],
    iou_type: str,
    max_detections: int = COCO_MAX_DETECTIONS,
) -> DetectionMatches:
    """Match detections with annotations by pycocotools, as ``evaluate_in_detail`` counts them.

    faster-coco-eval finds the same matches, but keeps them from Python.

    Args:
        tree: The annotation file's content.
        predictions: Detections with the file's own image and category ids.
        iou_type: ``bbox`` or ``segm``.
        max_detections: Number that count per image and category, if above COCO's 100.
    """
    limit = max(COCO_MAX_DETECTIONS, max_detections)
    truth, found, _, most = prepare(with_areas(tree), predictions, iou_type, limit)
    evaluation = COCOeval(truth, found, iou_type)
    evaluation.params.maxDets = [most]
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation.evaluate()
    return _packed(evaluation.evalImgs, len(truth.imgs), len(truth.cats))


def image_keys(tree: Mapping[str, Any]) -> list[str]:
    """Return the images' file names in the order in which matches number the images."""
    return [image["file_name"] for image in sorted(tree["images"], key=lambda image: image["id"])]


def _packed(entries: Sequence[Any], num_images: int, num_categories: int) -> DetectionMatches:
    """Pack pycocotools' entries for categories, sizes and images, the last changing fastest."""
    detections: list[tuple[NDArray[Any], ...]] = [_no_detections()]
    objects: list[tuple[int, int, list[int]]] = []
    per_category = NUM_SIZES * num_images
    for category in range(num_categories):
        of_category = entries[category * per_category : (category + 1) * per_category]
        by_image = [
            (image, of_category[image::num_images])
            for image in range(num_images)
            if of_category[image] is not None
        ]
        if by_image:
            detections.append(_ranked(category, by_image))
        objects += [(image, category, counts) for image, counts in _num_objects(by_image)]
    images, categories, scores, matched, ignored = map(
        np.concatenate, zip(*detections, strict=True)
    )
    return DetectionMatches(
        num_images=num_images,
        num_categories=num_categories,
        images=images,
        categories=categories,
        scores=scores,
        matched=matched,
        ignored=ignored,
        object_images=np.array([image for image, _, _ in objects], np.int32),
        object_categories=np.array([category for _, category, _ in objects], np.int32),
        num_objects=np.array([counts for *_, counts in objects], np.int32).reshape(-1, NUM_SIZES),
    )


def _ranked(
    category: int, by_image: Sequence[tuple[int, Sequence[Any]]]
) -> tuple[NDArray[Any], ...]:
    """Return images, categories, scores and packed flags in the order of pycocotools."""
    numbers = [len(sizes[0]["dtScores"]) for _, sizes in by_image]
    images = np.repeat(np.array([image for image, _ in by_image], np.int32), numbers)
    scores = np.concatenate([np.array(sizes[0]["dtScores"], float) for _, sizes in by_image])
    order = np.argsort(-scores, kind="mergesort")
    flags = [
        pack_flags(
            np.concatenate(
                [np.stack([entry[key] for entry in sizes]) != 0 for _, sizes in by_image], axis=2
            ).transpose(2, 0, 1)[order]
        )
        for key in ("dtMatches", "dtIgnore")
    ]
    return images[order], np.full(len(order), category, np.int32), scores[order], *flags


def _no_detections() -> tuple[NDArray[Any], ...]:
    flags = pack_flags(np.zeros((0, NUM_SIZES, NUM_OVERLAPS), bool))
    return np.zeros(0, np.int32), np.zeros(0, np.int32), np.zeros(0), flags, flags


def _num_objects(by_image: Sequence[tuple[int, Sequence[Any]]]) -> Iterator[tuple[int, list[int]]]:
    """Yield the images with objects that count, and the objects' number by size."""
    for image, sizes in by_image:
        counts = [int(np.count_nonzero(entry["gtIgnore"] == 0)) for entry in sizes]
        if any(counts):
            yield image, counts
