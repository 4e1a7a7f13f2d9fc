"""Kept answers of pixels: stored, read and refused."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from rsa_eval.records.mask_predictions import MaskPredictions
from rsa_eval.records.predictions import decode_predictions, encode_predictions
from rsa_eval.statistics.mask_overlap import PixelCounts


@pytest.fixture
def kept() -> MaskPredictions:
    """Three images of two classes, of which the second is in two."""
    right = np.array([[5, 2], [6, 0], [3, 1]])
    truth = np.array([[6, 4], [10, 0], [4, 6]])
    predicted = np.array([[7, 3], [6, 4], [8, 2]])
    return MaskPredictions(PixelCounts(right, truth, predicted))


def test_metrics_by_hand(kept: MaskPredictions) -> None:
    """Of all pixels: 14 of 27 and 3 of 16 for the classes, 17 of 30 right."""
    assert kept.value("mIoU") == pytest.approx(50 * (14 / 27 + 3 / 16))
    assert kept.value("pixel_accuracy") == pytest.approx(100 * 17 / 30)
    assert kept.value("mean_accuracy") == pytest.approx(50 * (14 / 20 + 3 / 10))
    assert kept.value("top1") is None
    assert kept.interval("top1") is None
    assert (kept.num_images, kept.smallest_group("mIoU")) == (3, 2)


def test_they_come_back_from_a_file(kept: MaskPredictions) -> None:
    """Bit for bit, with the names of the images."""
    found = decode_predictions(encode_predictions(["a", "b", "c"], kept))
    assert found.keys == ("a", "b", "c")
    assert isinstance(found.predictions, MaskPredictions)
    for name in ("right", "truth", "predicted"):
        own, stored = (getattr(one.counts, name) for one in (kept, found.predictions))
        assert own.tolist() == stored.tolist()
    assert found.predictions.is_of_same_truth(kept)


def test_other_masks_are_another_truth(kept: MaskPredictions) -> None:
    """Answers judged by other masks are not paired."""
    counts = kept.counts
    other = MaskPredictions(PixelCounts(counts.right, counts.truth + 1, counts.predicted + 1))
    assert not other.is_of_same_truth(kept)


DAMAGES: dict[str, tuple[Callable[[dict[str, Any]], dict[str, Any]], str]] = {
    "shape": (lambda one: one | {"truth": one["truth"][:2]}, "have shapes"),
    "type": (lambda one: one | {"right": one["right"].astype(float)}, "no int64 numbers"),
    "more right": (lambda one: one | {"right": one["right"] + 9}, "are no part of the others"),
    "negative": (lambda one: one | {"right": one["right"] - 9}, "are no part of the others"),
    "sums": (
        lambda one: one | {"predicted": one["predicted"] + 1},
        "other numbers of pixels than there are",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_counts_are_refused(kept: MaskPredictions, damage: str) -> None:
    """Each check that a file of another content would fail."""
    change, message = DAMAGES[damage]
    with pytest.raises(ValueError, match=message):
        MaskPredictions.from_arrays(change(dict(kept.arrays())))
