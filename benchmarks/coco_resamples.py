"""Compare AP of resampled images, for a pair of detectors, with evaluations by pycocotools."""

import contextlib
import io
import time
import tracemalloc
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pycocotools.cocoeval import COCOeval
from pydantic import Field

from benchmarks.measure import (
    Benchmark,
    BenchmarkSettings,
    Figure,
    Finding,
    Measurement,
    alternate,
)
from detection.coco.evaluation import COCO_MAX_DETECTIONS
from detection.coco.matches import matches_of
from detection.coco.precision import prepare
from rsa_eval.statistics.coco_precision import ap_replicates_coco
from rsa_eval.statistics.detection_matches import DetectionMatches

_OURS, _ACCUMULATE = "AP of the pair, all resamples", "pycocotools, accumulate() once"
_EVALUATE = "pycocotools, evaluate() once"
_SIDE_PIXELS = 640
# Shares of boxes that a detector sees, and how far it places them from the objects' sides.
_SEEN, _SHIFT = 0.8, 0.08

Tree = dict[str, Any]


class CocoResamplesSettings(BenchmarkSettings):
    """Size of the data set, by default that of COCO's val2017; no GPU is involved."""

    device: Literal["cpu"] = "cpu"
    """Device to run on."""
    repeats: Annotated[int, Field(ge=1)] = 1
    """Timed runs of each candidate, after a warm-up run."""
    num_images: Annotated[int, Field(ge=1)] = 5000
    """Images."""
    num_categories: Annotated[int, Field(ge=1)] = 80
    """Categories; the n-th has about n times fewer objects than the first."""
    objects_per_image: Annotated[float, Field(gt=0)] = 7.3
    """Mean number of objects."""
    detections_per_image: Annotated[int, Field(ge=1)] = 100
    """Detections."""
    resamples: Annotated[int, Field(ge=1)] = 1000
    """Resamples of the images."""


def measure(settings: CocoResamplesSettings) -> Measurement:
    """Time the resamples of two drawn detectors, and one evaluation of one by pycocotools."""
    random = np.random.default_rng(settings.seed)
    tree = _draw_objects(settings, random)
    detectors = [_draw_detections(settings, tree, random) for _ in range(2)]
    started = time.perf_counter()
    pair = [matches_of(tree, found, "bbox") for found in detectors]
    matching = (time.perf_counter() - started) / len(pair)
    shares = np.full(settings.num_images, 1 / settings.num_images)
    counts = random.multinomial(settings.num_images, shares, settings.resamples)
    ours = partial(_resample, pair, counts)
    memory = _peak_of_arrays(ours) / 2**20
    rival = _evaluation(tree, detectors[0])
    candidates = {
        _OURS: ours,
        _EVALUATE: partial(_quietly, rival.evaluate),
        _ACCUMULATE: partial(_quietly, rival.accumulate),
    }
    seconds = alternate(candidates, settings.repeats, settings.device)
    spent, evaluating, accumulating = (median(runs) for runs in seconds.values())
    num_evaluations = len(pair) * settings.resamples
    size = (
        f"{settings.num_images:,} images, {len(tree['annotations']):,} objects, "
        f"{len(detectors[0]):,} detections, {settings.resamples:,} resamples"
    )
    findings = [
        _at_most(60, f"{size}: bbox AP of a pair of detectors", spent, "s"),
        *(
            _at_most(
                limit,
                f"time over that of {num_evaluations:,} runs of pycocotools' {name}, for all sizes "
                "of objects together, estimated from one run",
                spent / (num_evaluations * rival_seconds),
                "×",
            )
            for limit, name, rival_seconds in (
                (0.001, "evaluate() and accumulate()", evaluating + accumulating),
                (0.02, "accumulate() alone", accumulating),
            )
        ),
        _at_most(512, "memory beside the matches", memory, "MiB"),
    ]
    figure = Figure(
        what="matching of one detector, once, for all metrics", value=matching, unit="s"
    )
    return Measurement(findings, seconds, [figure])


def _at_most(limit: float, what: str, value: float, unit: str) -> Finding:
    return Finding(what=what, value=value, unit=unit, bound="at most", limit=limit)


def _evaluation(tree: Tree, found: list[dict[str, Any]]) -> COCOeval:
    """Return pycocotools' evaluation of the headline's sizes and detections alone."""
    evaluation = COCOeval(*prepare(tree, found, "bbox", COCO_MAX_DETECTIONS)[:3])
    evaluation.params.maxDets = [COCO_MAX_DETECTIONS]
    evaluation.params.areaRng = evaluation.params.areaRng[:1]
    evaluation.params.areaRngLbl = evaluation.params.areaRngLbl[:1]
    return evaluation


def _resample(pair: list[DetectionMatches], counts: NDArray[np.int64]) -> None:
    for matches in pair:
        ap_replicates_coco(matches, counts, ["AP"])


def _peak_of_arrays(run: Callable[[], None]) -> int:
    """Return the bytes at the peak of what a run allocates, which NumPy reports to Python."""
    tracemalloc.start()
    run()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def _quietly(run: Callable[[], None]) -> None:
    with contextlib.redirect_stdout(io.StringIO()):
        run()


def _draw_objects(settings: CocoResamplesSettings, random: np.random.Generator) -> Tree:
    """Draw objects, one in 80 a crowd; those of an image are of at most three categories."""
    numbers = random.geometric(1 / (1 + settings.objects_per_image), settings.num_images) - 1
    images = np.repeat(np.arange(settings.num_images), numbers)
    of_image = _draw_categories(settings, (settings.num_images, 3), random)
    categories = of_image[images, random.integers(3, size=len(images))]
    boxes = _draw_boxes(len(images), random)
    drawn = zip(images.tolist(), categories.tolist(), boxes.tolist(), strict=True)
    return {
        "images": [{"id": number} for number in range(settings.num_images)],
        "categories": [{"id": number} for number in range(settings.num_categories)],
        "annotations": [
            {
                "id": number,
                "image_id": image,
                "category_id": category,
                "bbox": box,
                "area": box[2] * box[3],
                "iscrowd": int(number % 80 == 0),
            }
            for number, (image, category, box) in enumerate(drawn, start=1)
        ],
    }


def _draw_detections(
    settings: CocoResamplesSettings, tree: Tree, random: np.random.Generator
) -> list[dict[str, Any]]:
    """Draw the detections of a detector that finds most objects, many twice, and much else."""
    truth = np.array([entry["bbox"] for entry in tree["annotations"]])
    places = np.array([(entry["image_id"], entry["category_id"]) for entry in tree["annotations"]])
    seen = np.flatnonzero(random.random(len(truth)) < _SEEN)
    seen = np.concatenate([seen, seen[random.random(len(seen)) < _SEEN]])
    moved = truth[seen] + random.normal(0, _SHIFT, (len(seen), 4)) * truth[seen][:, [2, 3, 2, 3]]
    moved[:, 2:] = np.maximum(moved[:, 2:], 1)
    taken = np.bincount(places[seen, 0], minlength=settings.num_images)
    free = np.maximum(settings.detections_per_image - taken, 0)
    others = np.repeat(np.arange(settings.num_images), free)
    images = np.concatenate([places[seen, 0], others])
    categories = np.concatenate([places[seen, 1], _draw_categories(settings, len(others), random)])
    boxes = np.concatenate([moved, _draw_boxes(len(others), random)])
    scores = np.concatenate([random.beta(2, 2, len(seen)), random.beta(0.5, 8, len(others))])
    columns = (values.tolist() for values in (images, categories, boxes, scores))
    return [
        {"image_id": image, "category_id": category, "bbox": box, "score": score}
        for image, category, box, score in zip(*columns, strict=True)
    ]


def _draw_categories(
    settings: CocoResamplesSettings, shape: int | tuple[int, int], random: np.random.Generator
) -> NDArray[np.int64]:
    """Draw categories; the n-th is n times rarer than the first."""
    shares = 1 / np.arange(1, settings.num_categories + 1)
    return random.choice(settings.num_categories, shape, p=shares / shares.sum())


def _draw_boxes(count: int, random: np.random.Generator) -> NDArray[np.float64]:
    """Draw boxes, x, y, width and height in pixels, of COCO's sizes."""
    sizes = np.clip(np.exp(random.normal(np.log(60), 1, (count, 2))), 4, _SIDE_PIXELS)
    corners = random.uniform(0, 1, (count, 2)) * (_SIDE_PIXELS - sizes)
    return np.concatenate([corners, sizes], axis=1)


BENCHMARK = Benchmark(
    settings=CocoResamplesSettings,
    measure=measure,
    summary="AP of resampled images from matches, compared with evaluations by pycocotools.",
)
