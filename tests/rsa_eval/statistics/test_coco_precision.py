import tracemalloc
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from coco_accumulate import METRICS, average_precision
from numpy.typing import NDArray

from rsa_eval.statistics import coco_precision
from rsa_eval.statistics.coco_precision import AVERAGED_OVERLAPS, ap_replicates_coco
from rsa_eval.statistics.detection_matches import DetectionMatches, pack_flags, unpack_flags


def _drawn(
    seed: int, num_images: int = 7, num_categories: int = 4, num_detections: int = 150
) -> DetectionMatches:
    """Draw flags without regard to what matching could give, and scores with many ties."""
    random = np.random.default_rng(seed)
    categories = np.sort(random.integers(num_categories, size=num_detections)).astype(np.int32)
    scores = random.integers(20, size=num_detections) / 20
    order = np.lexsort((-scores, categories))
    images = random.integers(num_images, size=num_detections).astype(np.int32)
    flags = random.random((2, num_detections, 4, 10)) < np.array([0.5, 0.2])[:, None, None, None]
    # The last category has no object, the one before it none that is small.
    pairs = [(image, category) for category in range(num_categories - 1) for image in range(3)]
    num_objects = random.integers(100, size=(len(pairs), 4))
    num_objects[-3:, 1] = 0
    return DetectionMatches(
        num_images=num_images,
        num_categories=num_categories,
        images=images,
        categories=categories,
        scores=scores[order],
        matched=pack_flags(flags[0]),
        ignored=pack_flags(flags[1]),
        object_images=np.array([image for image, _ in pairs], np.int32),
        object_categories=np.array([category for _, category in pairs], np.int32),
        num_objects=num_objects.astype(np.int32),
    )


def _literally(matches: DetectionMatches, counts: NDArray[np.int64]) -> dict[str, float]:
    detections = zip(
        matches.images,
        matches.categories,
        unpack_flags(matches.matched),
        unpack_flags(matches.ignored),
        strict=True,
    )
    objects = zip(
        matches.object_images, matches.object_categories, matches.num_objects, strict=True
    )
    found = average_precision([*detections], [*objects], counts, matches.num_categories)
    return {name: float(value) for name, value in found.items()}


def _resamples(matches: DetectionMatches, count: int, seed: int = 0) -> NDArray[np.int64]:
    random = np.random.default_rng(seed)
    shares = np.full(matches.num_images, 1 / matches.num_images)
    return random.multinomial(matches.num_images, shares, count)


@pytest.mark.parametrize("seed", range(4))
def test_resamples_are_those_of_literal_copies(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """To the last bit, however many resamples are computed at once."""
    matches = _drawn(seed)
    counts = np.concatenate([np.ones((1, 7), np.int64), _resamples(matches, 5)])
    assert (counts == 0).any()
    assert (counts > 2).any()
    found = ap_replicates_coco(matches, counts)
    assert list(found) == list(AVERAGED_OVERLAPS) == list(METRICS)
    for index, row in enumerate(counts):
        assert {name: values[index] for name, values in found.items()} == _literally(matches, row)
    assert len(np.unique(found["AP"])) == 6
    monkeypatch.setattr(coco_precision, "_CHUNK", 2 * 10 * 101 * 4)
    in_chunks = ap_replicates_coco(matches, counts)
    assert all(np.array_equal(found[name], in_chunks[name]) for name in found)


def test_by_hand() -> None:
    """A miss of image 0 above the hit of image 1, which has one of the two objects.

    Once each: precision 1/2 at the 51 recalls to 1/2. Image 1 alone, thrice: precision 1
    at every recall. Image 1 twice, image 0 once: 2/3, at the 67 recalls to 2/3.
    """
    flags = np.zeros((2, 4, 10), bool)
    flags[1] = True
    matches = DetectionMatches(
        num_images=2,
        num_categories=1,
        images=np.array([0, 1], np.int32),
        categories=np.zeros(2, np.int32),
        scores=np.array([0.9, 0.8]),
        matched=pack_flags(flags),
        ignored=pack_flags(np.zeros((2, 4, 10), bool)),
        object_images=np.array([0, 1], np.int32),
        object_categories=np.zeros(2, np.int32),
        num_objects=np.array([[1, 0, 0, 1], [1, 0, 0, 1]], np.int32),
    )
    counts = np.array([[1, 1], [0, 3], [1, 2], [2, 0], [0, 0]])
    found = ap_replicates_coco(matches, counts)
    expected = [100 * 51 / 101 / 2, 100, 100 * 67 / 101 * 2 / 3, 0, -1]
    for name in ("AP", "AP50", "AP75", "APl"):
        assert found[name].tolist() == pytest.approx(expected)
    assert found["APs"].tolist() == found["APm"].tolist() == [-1] * 5


def test_chosen_metrics_are_the_same_numbers() -> None:
    """Alone, and in the order that was asked for."""
    matches = _drawn(0)
    counts = _resamples(matches, 3)
    every = ap_replicates_coco(matches, counts)
    found = ap_replicates_coco(matches, counts, ["APl", "AP50"])
    assert list(found) == ["APl", "AP50"]
    assert all(np.array_equal(found[name], every[name]) for name in found)


def test_a_resample_with_every_image_twice_differs_little() -> None:
    """Two copies of everything have the recalls and precisions of one, but for the rounding."""
    matches = _drawn(1)
    once, twice = ap_replicates_coco(matches, np.array([[1] * 7, [2] * 7]))["AP"]
    assert twice == pytest.approx(once, rel=0.02)


def test_identical_detectors_do_not_differ() -> None:
    """Resample by resample, with the same counts."""
    counts = _resamples(_drawn(2), 20)
    first, second = (ap_replicates_coco(_drawn(2), counts) for _ in range(2))
    assert all(np.array_equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("num_categories", [0, 3])
def test_nothing_to_average(num_categories: int) -> None:
    """No image, category or object has no average precision; no resample gives no number."""
    empty = replace(
        _drawn(0, num_detections=0),
        num_categories=num_categories,
        object_images=np.zeros(0, np.int32),
        object_categories=np.zeros(0, np.int32),
        num_objects=np.zeros((0, 4), np.int32),
    )
    for counts in (np.ones((2, 7), int), np.zeros((0, 7), int)):
        found = ap_replicates_coco(empty, counts)
        assert all(values.tolist() == [-1.0] * len(counts) for values in found.values())
    none = replace(empty, num_images=0)
    assert ap_replicates_coco(none, np.ones((1, 0), int))["AP"].tolist() == [-1.0]


def test_objects_without_detections_have_precision_0() -> None:
    """Unlike sizes without objects."""
    drawn = _drawn(0)
    blind = replace(drawn, **{name: getattr(drawn, name)[:0] for name in BY_DETECTION})
    found = ap_replicates_coco(blind, np.ones((1, 7), int))
    assert all(values.tolist() == [0.0] for values in found.values())


BY_DETECTION = ("images", "categories", "scores", "matched", "ignored")


@pytest.mark.parametrize(
    ("counts", "metrics", "message"),
    [
        (np.ones((2, 6), int), ["AP"], r"counts are \(2, 6\), expected \(resamples, 7\)"),
        (np.ones(7, int), ["AP"], r"counts are \(7,\)"),
        (np.ones((1, 7)), ["AP"], "counts are float64, expected integers"),
        (-np.ones((1, 7), int), ["AP"], "expected integers >= 0"),
        (np.ones((1, 7), int), ["AP", "AR"], r"unknown metrics \['AR'\]"),
    ],
)
def test_unusable_arguments(counts: NDArray[Any], metrics: list[str], message: str) -> None:
    """They are refused by name."""
    with pytest.raises(ValueError, match=message):
        ap_replicates_coco(_drawn(0), counts, metrics)


def test_memory_does_not_grow_with_the_resamples() -> None:
    """Of 500 resamples with 100 categories the values at all recalls would take 385 MiB."""
    matches = _drawn(0, num_categories=100)
    tracemalloc.start()
    ap_replicates_coco(matches, _resamples(matches, 500), ["AP"])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 200 * 2**20
