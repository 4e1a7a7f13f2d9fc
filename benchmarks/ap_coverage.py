"""Simulate detectors: how often the interval of average precision holds the expected one."""

import time
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from benchmarks.measure import Benchmark, BenchmarkSettings, Finding, Measurement
from rsa_eval.statistics.bootstrap import resampled_counts
from rsa_eval.statistics.coco_precision import ap_replicates_coco
from rsa_eval.statistics.detection_matches import (
    NUM_OVERLAPS,
    NUM_SIZES,
    DetectionMatches,
    pack_flags,
)
from rsa_eval.statistics.intervals import percentile_interval

_OBJECTS, _WRONG = 2.0, 1.5  # of an image, on average
_SEEN = 0.8  # share of the objects that a detector finds
_QUALITY, _SPREAD, _SHARED = 0.72, 0.12, 0.08  # overlaps: mean, deviation, part of the image
_FEWEST_PERCENT = 93.5
_AT_ONCE = 50  # experiments that share their resamples, which are independent of them


class APCoverageSettings(BenchmarkSettings):
    """Size of the simulation; no GPU is involved."""

    device: Literal["cpu"] = "cpu"
    """Device to run on."""
    repeats: Literal[1] = 1
    """Runs."""
    num_images: Annotated[tuple[Annotated[int, Field(ge=2)], ...], Field(min_length=1)] = (50, 1000)
    """Test images, for each of which everything is simulated."""
    num_experiments: Annotated[int, Field(ge=2)] = 2000
    """Pairs of detectors, each pair on another test set."""
    resamples: Annotated[int, Field(ge=40)] = 300
    """Resamples of the images."""


def measure(settings: APCoverageSettings) -> Measurement:
    """Count the intervals of AP, and of a difference of AP, that hold the expected value.

    The expected AP is the mean over all simulated test sets of the size; the detectors of a pair
    are equally good, so that the expected difference is 0.
    """
    findings, seconds = [], {}
    for num_images in settings.num_images:
        started = time.perf_counter()
        own, differences = _coverage(num_images, settings)
        seconds[f"{num_images:,} images"] = [time.perf_counter() - started]
        size = f"{num_images:,} images, {settings.num_experiments:,} experiments: 95 % interval of"
        for what, percent in (("AP", own), ("a difference of AP", differences)):
            findings.append(
                Finding(
                    what=f"{size} {what} holds the expected one",
                    value=percent,
                    unit="%",
                    bound="at least",
                    limit=_FEWEST_PERCENT,
                )
            )
    return Measurement(findings, seconds)


def _coverage(num_images: int, settings: APCoverageSettings) -> tuple[float, float]:
    rng = np.random.default_rng([settings.seed, num_images])
    once = np.ones((1, num_images), np.int64)
    values, own, differences = [], [], []
    for number in range(settings.num_experiments):
        if number % _AT_ONCE == 0:
            drawn = list(resampled_counts(num_images, settings.resamples, settings.seed + number))
            counts = np.concatenate([once, *drawn])
        first, second = (
            ap_replicates_coco(matches, counts, ["AP"])["AP"] for matches in _pair(num_images, rng)
        )
        values.append(first[0])
        own.append(percentile_interval(first[1:], num_images))
        differences.append(percentile_interval(first[1:] - second[1:], num_images))
    expected = float(np.mean(values))
    return (
        100 * float(np.mean([not interval.excludes(expected) for interval in own])),
        100 * float(np.mean([not interval.excludes(0) for interval in differences])),
    )


def _pair(num_images: int, rng: np.random.Generator) -> list[DetectionMatches]:
    """Draw the detections of two equally good detectors on one set of objects."""
    objects = np.repeat(np.arange(num_images), rng.poisson(_OBJECTS, num_images))
    easiness = rng.normal(size=num_images)
    return [_detector(num_images, objects, easiness, rng) for _ in range(2)]


def _detector(
    num_images: int,
    objects: NDArray[np.int64],
    easiness: NDArray[np.float64],
    rng: np.random.Generator,
) -> DetectionMatches:
    """Draw detections; those of better overlap have higher scores.

    Args:
        num_images: Images.
        objects: Image of each object, in rising order.
        easiness: How much better than others an image's objects are found, (images,).
        rng: Draws all.
    """
    found = objects[rng.random(len(objects)) < _SEEN]
    quality = _QUALITY + _SPREAD * rng.normal(size=len(found)) + _SHARED * easiness[found]
    # The overlaps 0.50, 0.55 … 0.95 that each reaches.
    reached = np.clip(np.floor((quality - 0.5) / 0.05 + 1), 0, NUM_OVERLAPS)
    wrong = np.repeat(np.arange(num_images), rng.poisson(_WRONG, num_images))
    images = np.concatenate([found, wrong])
    reached = np.concatenate([reached, np.zeros(len(wrong))])
    scores = np.concatenate(
        [
            0.5 + 0.15 * rng.normal(size=len(found)) + 0.2 * (quality - _QUALITY),
            0.3 + 0.2 * rng.normal(size=len(wrong)),
        ]
    )
    order = np.lexsort((images, -scores))
    hits = np.arange(NUM_OVERLAPS) < reached[order, None, None]
    flags = np.broadcast_to(hits, (len(order), NUM_SIZES, NUM_OVERLAPS))
    with_objects, numbers = np.unique(objects, return_counts=True)
    return DetectionMatches(
        num_images=num_images,
        num_categories=1,
        images=images[order].astype(np.int32),
        categories=np.zeros(len(order), np.int32),
        scores=scores[order],
        matched=pack_flags(flags),
        ignored=pack_flags(np.zeros_like(flags)),
        object_images=with_objects.astype(np.int32),
        object_categories=np.zeros(len(with_objects), np.int32),
        num_objects=np.repeat(numbers[:, None], NUM_SIZES, axis=1).astype(np.int32),
    )


BENCHMARK = Benchmark(
    settings=APCoverageSettings,
    measure=measure,
    summary="How often the 95 % interval of a detector's AP holds the expected AP, simulated.",
)
