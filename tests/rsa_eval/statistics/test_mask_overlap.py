"""Overlap of masks: by hand, against scikit-learn, and under resamples."""

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, jaccard_score
from sklearn.metrics import confusion_matrix as sklearn_matrix

from rsa_eval.statistics.mask_overlap import (
    PixelCounts,
    class_ious,
    class_recalls,
    confusion_matrix,
    overlap_metric,
    overlap_replicates,
)


def counts_of(matrix: np.ndarray) -> PixelCounts:
    """The diagonal and the sums of a confusion matrix."""
    return PixelCounts(matrix.diagonal(), matrix.sum(axis=1), matrix.sum(axis=0))


def test_two_by_three_pixels_by_hand() -> None:
    """Truth 0 0 1 / 1 2 void against 0 1 1 / 1 0 2: IoU 1/3, 2/3 and 0."""
    truth = np.array([[0, 0, 1], [1, 2, 255]], np.uint8)
    predicted = np.array([[0, 1, 1], [1, 0, 2]], np.uint8)
    matrix = confusion_matrix(truth, predicted, 3)
    assert matrix.tolist() == [[1, 1, 0], [0, 2, 0], [1, 0, 0]]
    counts = counts_of(matrix)
    assert class_ious(counts).tolist() == pytest.approx([100 / 3, 200 / 3, 0])
    assert class_recalls(counts).tolist() == pytest.approx([50, 100, 0])
    assert overlap_metric(counts, "mIoU") == pytest.approx(100 / 3)
    assert overlap_metric(counts, "pixel_accuracy") == pytest.approx(60)
    assert overlap_metric(counts, "mean_accuracy") == pytest.approx(50)


def test_a_class_without_pixels_counts_as_zero() -> None:
    """Of four classes the last neither occurs nor is predicted: mIoU divides by four.

    In the mean accuracy only classes that occur count.
    """
    matrix = confusion_matrix(np.array([0, 1, 1]), np.array([0, 1, 1]), 4)
    counts = counts_of(matrix)
    assert np.isnan(class_ious(counts)).tolist() == [False, False, True, True]
    assert overlap_metric(counts, "mIoU") == 50
    assert overlap_metric(counts, "mean_accuracy") == 100
    predicted = counts_of(confusion_matrix(np.array([0, 0]), np.array([0, 2]), 3))
    assert class_ious(predicted)[2] == 0  # predicted where it is not


def test_the_matrix_is_that_of_scikit_learn() -> None:
    """On random masks with ignored pixels; so are the scores, of classes that all occur."""
    rng = np.random.default_rng(0)
    truth = rng.choice([0, 1, 2, 3, 4, 255], size=(37, 53)).astype(np.uint8)
    predicted = np.where(rng.random(truth.shape) < 0.6, truth % 5, rng.integers(5, size=(37, 53)))
    known = truth != 255
    matrix = confusion_matrix(truth, predicted, 5)
    expected = sklearn_matrix(truth[known], predicted[known], labels=range(5))
    assert matrix.tolist() == expected.tolist()
    counts = counts_of(matrix)
    ious = jaccard_score(truth[known], predicted[known], average=None)
    assert class_ious(counts).tolist() == pytest.approx((100 * ious).tolist())
    recall = balanced_accuracy_score(truth[known], predicted[known])
    assert overlap_metric(counts, "mean_accuracy") == pytest.approx(100 * recall)


def test_masks_of_two_shapes_are_refused() -> None:
    """Broadcasting one to the other would count wrong pixels."""
    with pytest.raises(ValueError, match=r"shapes \(2, 3\) and \(3, 2\)"):
        confusion_matrix(np.zeros((2, 3), int), np.zeros((3, 2), int), 2)


def random_counts(num_images: int, seed: int) -> PixelCounts:
    """Counts of images with two to four of five classes; the fifth never occurs."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(1, 50, size=(num_images, 5)) * (rng.random((num_images, 5)) < 0.6)
    truth[:, 4] = 0
    truth[:, 0] += 1
    right = (truth * rng.random(truth.shape)).astype(int)
    missed = (truth - right).sum(axis=1)
    predicted = right.copy()
    predicted[:, 0] += missed
    return PixelCounts(right, truth, predicted)


def test_replicates_equal_a_loop() -> None:
    """Each is the metric of the drawn images' added counts, without classes the draw lacks."""
    counts = random_counts(6, 1)
    found = {
        name: overlap_replicates(counts, name, 50, 4)
        for name in ("mIoU", "pixel_accuracy", "mean_accuracy")
    }
    rng = np.random.default_rng(4)
    draws = rng.integers(6, size=(50, 6))
    seen_before = counts.total().union > 0
    for number, images in enumerate(draws):
        drawn = PixelCounts(counts.right[images], counts.truth[images], counts.predicted[images])
        total = drawn.total()
        union = total.truth + total.predicted - total.right
        ious = [100 * r / u if u else 0.0 for r, u in zip(total.right, union, strict=True)]
        divisor = sum(bool(u) or not seen for u, seen in zip(union, seen_before, strict=True))
        assert found["mIoU"][number] == pytest.approx(sum(ious) / divisor)
        accuracy = 100 * total.right.sum() / total.truth.sum()
        assert found["pixel_accuracy"][number] == pytest.approx(accuracy)
        recalls = [100 * r / t for r, t in zip(total.right, total.truth, strict=True) if t]
        assert found["mean_accuracy"][number] == pytest.approx(np.mean(recalls))
