import io
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from rsa_eval.statistics.detection_matches import (
    DetectionMatches,
    arrays,
    from_arrays,
    pack_flags,
    unpack_flags,
)


def _matches(scores: NDArray[np.float64] | None = None) -> DetectionMatches:
    random = np.random.default_rng(0)
    flags = random.random((2, 3, 4, 10)) < 0.5
    return DetectionMatches(
        num_images=4,
        num_categories=40_000,
        images=np.array([3, 0, 1], np.int32),
        categories=np.array([2, 2, 39_999], np.int32),
        scores=np.array([0.75, 0.5, 1.0]) if scores is None else scores,
        matched=pack_flags(flags[0]),
        ignored=pack_flags(flags[1]),
        object_images=np.array([0, 3], np.int32),
        object_categories=np.array([2, 5], np.int32),
        num_objects=np.array([[3, 1, 1, 1], [1, 0, 0, 1]], np.int32),
    )


def _assert_equal(first: DetectionMatches, second: DetectionMatches) -> None:
    for name, value in vars(first).items():
        other = getattr(second, name)
        assert np.array_equal(value, other), name
        assert np.asarray(value).dtype == np.asarray(other).dtype, name


def test_flags_come_back() -> None:
    """Forty bits of a detection take five bytes."""
    flags = np.random.default_rng(0).random((9, 4, 10)) < 0.5
    assert pack_flags(flags).shape == (9, 5)
    assert np.array_equal(unpack_flags(pack_flags(flags)), flags)


@pytest.mark.parametrize("scores", [[0.75, 0.5, 1.0], [0.1 + 1e-12, 0.1, 0.3]])
def test_stored_matches_come_back(scores: list[float]) -> None:
    """By way of a file; scores are narrowed only where nothing is lost."""
    matches = _matches(np.array(scores))
    stored = arrays(matches)
    assert stored["scores"].dtype == (np.float32 if scores[0] == 0.75 else np.float64)
    assert stored["categories"].dtype == np.int32
    assert stored["object_categories"].dtype == stored["num_objects"].dtype == np.int16
    file = io.BytesIO()
    np.savez_compressed(file, **stored)
    file.seek(0)
    with np.load(file, allow_pickle=False) as archive:
        _assert_equal(from_arrays(dict(archive)), matches)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("scores", np.zeros(2), r"scores of detection matches are \(2,\), expected \(3,\)"),
        ("scores", np.array([0.5, 0.75, 1]), "not in order of category and falling score"),
        ("scores", np.array([0.5, np.nan, 1]), "scores of detection matches are not finite"),
        ("categories", np.array([3, 2, 9], np.int32), "not in order of category and falling score"),
        ("categories", np.array([2, 2, 40_000], np.int32), "are 2 to 40000, expected 0 to 39999"),
        (
            "images",
            np.array([0, -1, 2], np.int32),
            "images of detection matches are -1 to 2, expected 0 to 3",
        ),
        (
            "images",
            np.array([0, 2**32, 2]),
            "images of detection matches are int64, expected int32",
        ),
        ("matched", np.zeros((3, 4), np.uint8), r"are \(3, 4\), expected \(3, 5\)"),
        ("ignored", np.zeros((3, 5)), "ignored of detection matches are float64"),
        ("num_objects", np.zeros((2, 3), np.int32), r"are \(2, 3\), expected \(2, 4\)"),
        ("num_objects", -np.ones((2, 4), np.int32), "negative in number"),
        (
            "object_categories",
            np.array([5, 2], np.int32),
            "objects of detection matches are out of order",
        ),
        (
            "object_images",
            np.array([0, 4], np.int32),
            "object_images of detection matches are 0 to 4",
        ),
        ("extent", np.array([4], np.int32), r"extent of detection matches is \(1,\)"),
    ],
)
def test_damaged_matches_are_refused(name: str, value: NDArray[Any], message: str) -> None:
    """The array and its fault are named."""
    with pytest.raises(ValueError, match=message):
        from_arrays(arrays(_matches()) | {name: value})


def test_missing_arrays_are_named() -> None:
    """All of them."""
    stored = arrays(_matches())
    del stored["images"], stored["ignored"]
    with pytest.raises(ValueError, match="detection matches lack images, ignored"):
        from_arrays(stored)
