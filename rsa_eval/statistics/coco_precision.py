"""Compute COCO's average precision of resampled images, from detections matched once.

Matching looks at one image at a time, so a resample of images changes no match: only how often each
detection and object counts. Lin et al. 2014 (COCO), with the arithmetic of pycocotools' accumulate.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rsa_eval.statistics.detection_matches import NUM_OVERLAPS, DetectionMatches, unpack_flags

AVERAGED_OVERLAPS: dict[str, tuple[int | slice, int]] = {
    "AP": (slice(None), 0),
    "AP50": (0, 0),
    "AP75": (5, 0),
    "APs": (slice(None), 1),
    "APm": (slice(None), 2),
    "APl": (slice(None), 3),
}
"""Overlaps and size over which each metric averages precision, beside recalls and categories."""

_RECALLS = np.linspace(0.0, 1.0, 101)
# pycocotools adds this to the number of detections that it divides by.
_ADDED = np.spacing(1)
# Elements of the largest array.
_CHUNK = 2**21

_Ints = NDArray[np.int64]
_Floats = NDArray[np.float64]


@dataclass(frozen=True)
class _RankedHits:
    """The detections of a category that are right at one overlap."""

    hits: NDArray[np.intp]
    """Their places among the counted detections of the category."""
    ignored: NDArray[np.intp]
    """Places of detections that this overlap ignores and another counts."""
    num_ignored_before: NDArray[np.intp]
    """Number of ``ignored`` that rank above each hit."""


@dataclass(frozen=True)
class _RankedCategory:
    """Detections of a category by falling score, and its objects, within one range of sizes."""

    images: NDArray[np.intp]
    """Image of each detection that some overlap counts, down to the last hit."""
    overlaps: list[_RankedHits]
    object_images: NDArray[np.intp]
    num_objects: _Ints
    """Number of objects in each of ``object_images``."""


def ap_replicates_coco(
    matches: DetectionMatches,
    counts: NDArray[Any],
    metrics: Sequence[str] = tuple(AVERAGED_OVERLAPS),
) -> dict[str, _Floats]:
    """Compute average precision of resamples of the images.

    An image that a resample holds k times counts as k images with the same detections and objects,
    one after the other. The numbers are bitwise those of pycocotools on a data set whose copies are
    written out under consecutive image ids, but for one case: where an image has detections of
    equal score and category, pycocotools ranks all of one copy before those of the next, while here
    the copies of a detection stay together. With every image once there is no such case.

    Args:
        matches: One detector's, of one IoU type.
        counts: How often each resample holds each image, integers (B, N).
        metrics: Names from ``AVERAGED_OVERLAPS``. AP, AP50 and AP75 share their work; each of the
            others adds up to half as much.

    Returns:
        By name, the metric of each resample in percent, (B,); -1 where a resample has no object of
        the metric's sizes.

    Raises:
        ValueError: If a metric is unknown, or counts are not integers >= 0 of this shape.
    """
    unknown = [name for name in metrics if name not in AVERAGED_OVERLAPS]
    if unknown:
        raise ValueError(f"unknown metrics {unknown}; expected some of {[*AVERAGED_OVERLAPS]}")
    if counts.ndim != 2 or counts.shape[1] != matches.num_images:
        raise ValueError(f"counts are {counts.shape}, expected (resamples, {matches.num_images})")
    if not np.issubdtype(counts.dtype, np.integer) or (counts < 0).any():
        raise ValueError(f"counts are {counts.dtype}, expected integers >= 0")
    found: dict[str, _Floats] = {name: np.empty(len(counts)) for name in metrics}
    for size in sorted({AVERAGED_OVERLAPS[name][1] for name in metrics}):
        names = [name for name in metrics if AVERAGED_OVERLAPS[name][1] == size]
        categories = list(_ranked_categories(matches, size))
        step = _CHUNK // max(1, NUM_OVERLAPS * len(_RECALLS) * len(categories))
        step = min([step, *(_CHUNK // max(1, len(entry.images)) for entry in categories)])
        step = max(1, step)
        for start in range(0, len(counts), step):
            rows = slice(start, start + step)
            values, are_defined = _precision(categories, counts[rows].astype(np.int64))
            for name in names:
                found[name][rows] = _averages(values, are_defined, AVERAGED_OVERLAPS[name][0])
    return found


def _ranked_categories(matches: DetectionMatches, size: int) -> Iterator[_RankedCategory]:
    """Yield the categories' detections and objects of one range of sizes."""
    numbers = np.arange(matches.num_categories + 1)
    found = np.searchsorted(matches.categories, numbers)
    objects = np.searchsorted(matches.object_categories, numbers)
    for category in range(matches.num_categories):
        rows = slice(found[category], found[category + 1])
        are_ignored = unpack_flags(matches.ignored[rows])[:, size]
        are_hits = unpack_flags(matches.matched[rows])[:, size] & ~are_ignored
        end = max(np.flatnonzero(are_hits.any(axis=1)), default=-1) + 1
        places = np.flatnonzero(~are_ignored[:end].all(axis=1))
        overlaps = []
        for overlap in range(NUM_OVERLAPS):
            hits = np.flatnonzero(are_hits[places, overlap])
            ignored = np.flatnonzero(are_ignored[places, overlap])
            overlaps.append(_RankedHits(hits, ignored, np.searchsorted(ignored, hits)))
        pairs = slice(objects[category], objects[category + 1])
        yield _RankedCategory(
            matches.images[rows][places].astype(np.intp),
            overlaps,
            matches.object_images[pairs].astype(np.intp),
            matches.num_objects[pairs, size].astype(np.int64),
        )


def _precision(
    categories: Sequence[_RankedCategory], counts: _Ints
) -> tuple[_Floats, NDArray[np.bool_]]:
    """Compute the precision of resamples (B, N) at every overlap, recall and category.

    Returns:
        Precision, (B, overlaps, recalls, categories), and which categories of a resample have an
        object, (B, categories).
    """
    values = np.zeros((len(counts), NUM_OVERLAPS, len(_RECALLS), len(categories)))
    are_defined = np.zeros((len(counts), len(categories)), bool)
    for index, category in enumerate(categories):
        num_objects = counts[:, category.object_images] @ category.num_objects
        are_defined[:, index] = num_objects > 0
        needed = _hits_needed(num_objects)
        weights = np.take(counts, category.images, axis=1)
        seen = np.cumsum(weights, axis=1)
        for overlap, ranked in enumerate(category.overlaps):
            values[:, overlap, :, index] = _at_recalls(ranked, weights, seen, needed)
    return values, are_defined


def _hits_needed(num_objects: _Ints) -> _Ints:
    """Return the smallest number of hits, of (B,) objects, that reaches each recall, (B, recalls).

    Recall is the quotient in float64, as pycocotools compares it. At recall 0 its precision is that
    of the first detection, which is the precision of the first hit, if there is one.
    """
    total = np.maximum(num_objects, 1)[:, None]
    needed = np.ceil(total * _RECALLS).astype(np.int64)
    needed -= (needed - 1) / total >= _RECALLS
    needed += needed / total < _RECALLS
    return np.maximum(needed, 1)


def _at_recalls(ranked: _RankedHits, weights: _Ints, seen: _Ints, needed: _Ints) -> _Floats:
    """Compute one category's precision at one overlap, (B, recalls).

    Between hits precision only falls, and the k copies of a hit raise it, so that it is looked at
    after each hit's last copy alone.

    Args:
        ranked: H hits among D detections.
        weights: Copies of each detection, (B, D).
        seen: Copies of the detections up to each one, (B, D).
        needed: Number of hits that reaches each recall, (B, recalls).
    """
    copies = np.take(weights, ranked.hits, axis=1)
    right = np.cumsum(copies, axis=1)
    counted = np.take(seen, ranked.hits, axis=1)
    if len(ranked.ignored):
        ignored = np.cumsum(np.take(weights, ranked.ignored, axis=1), axis=1)
        ignored = np.concatenate([np.zeros_like(ignored[:, :1]), ignored], axis=1)
        counted -= np.take(ignored, ranked.num_ignored_before, axis=1)
    best = right / (counted + _ADDED)
    backwards = best[:, ::-1]
    np.maximum.accumulate(backwards, axis=1, out=backwards)
    # One entry per copy of a hit, and one behind all of them for recalls that are not reached.
    by_hit = np.append(np.repeat(best.ravel(), copies.ravel()), 0.0)
    num_right = copies.sum(axis=1)
    places = (np.cumsum(num_right) - num_right)[:, None] + needed - 1
    places[needed > num_right[:, None]] = -1
    found: _Floats = np.take(by_hit, places)
    return found


def _averages(
    values: _Floats, are_defined: NDArray[np.bool_], overlaps: int | slice
) -> list[float]:
    """Average each resample over its categories with objects, in percent.

    The order of summation is that of pycocotools: overlaps, recalls, categories.
    """
    return [
        100 * float(value[overlaps][..., defined].ravel().mean()) if defined.any() else -1.0
        for value, defined in zip(values, are_defined, strict=True)
    ]
