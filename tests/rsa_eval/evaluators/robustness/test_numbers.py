import numpy as np
import pytest
import torch
from torch import Tensor

from rsa_eval.evaluators.logistic.fit import LinearClassifier
from rsa_eval.evaluators.robustness.calibration import calibration_error
from rsa_eval.evaluators.robustness.corruption_error import (
    ALEXNET_ERRORS,
    CORRUPTIONS,
    mean_error,
    mean_relative_error,
    relative_error,
)
from rsa_eval.evaluators.robustness.grading import grade
from rsa_eval.features.labelled import LabelledFeatures
from rsa_pretrain.plumbing.errors import UserError


def test_calibration_error_by_hand() -> None:
    """Two bins; 0.5 is in the lower one: gaps of 50 - 40 and 50 - 80 percent, two images each."""
    confidences = np.array([0.5, 0.3, 0.9, 0.7])
    right = np.array([True, False, True, False])
    found = calibration_error(confidences, right, 2)
    assert found.error == pytest.approx((2 * 10 + 2 * 30) / 4)
    assert [each.count for each in found.bins] == [2, 2]
    assert [each.confidence for each in found.bins] == pytest.approx([40, 80])
    assert [each.top1 for each in found.bins] == [50, 50]


def test_calibration_error_with_empty_bins_and_bounds() -> None:
    """0 is in the first bin, 1 in the last, and a bin without images has neither mean."""
    found = calibration_error(np.array([0.0, 1.0, 1.0, 1.0]), np.array([0, 1, 1, 0]) > 0, 15)
    assert found.error == pytest.approx(3 / 4 * (100 - 200 / 3))
    assert [each.count for each in found.bins] == [1, *[0] * 13, 3]
    assert found.bins[1].confidence is found.bins[1].top1 is None
    assert (found.bins[1].low, found.bins[1].high) == pytest.approx((1 / 15, 2 / 15))


def test_confident_and_always_right_is_calibrated() -> None:
    """Every image right with probability 1 has no gap; every image wrong has one of 100."""
    sure = np.ones(7)
    assert calibration_error(sure, sure > 0, 15).error == 0
    assert calibration_error(sure, sure < 0, 15).error == 100


@pytest.mark.parametrize("confidences", [[], [0.5], [0.5, 1.5], [0.5, float("nan")]])
def test_no_probabilities_are_refused(confidences: list[float]) -> None:
    """Numbers outside [0, 1], or as many as there are no outcomes for, are a mistake."""
    right = np.array([True] * 2)[: len(confidences) and 2]
    with pytest.raises(ValueError, match="confidence"):
        calibration_error(np.array(confidences), right, 15)


def test_mean_corruption_error_by_hand() -> None:
    """150 of 300 and 300 of 200 percent points: 50 and 150, on average 100."""
    errors = {"fog": [10.0, 20, 30, 40, 50], "snow": [60.0] * 5, "spatter": [99.0] * 5}
    assert relative_error(errors["fog"], 60) == pytest.approx(50)
    assert mean_relative_error(errors, {"fog": 60.0, "snow": 40.0}) == pytest.approx(100)


# As Hendrycks & Dietterich's code states them, in the order of its corruptions.
PUBLISHED = [
    *(0.886428, 0.894468, 0.922640),
    *(0.819880, 0.826268, 0.785948, 0.798360),
    *(0.866816, 0.826572, 0.819324, 0.564592),
    *(0.853204, 0.646056, 0.717840, 0.606500),
]


def test_alexnet_has_100() -> None:
    """The baseline's published errors are 100 in total, whatever their severities; extras aside."""
    spread = np.array([-20.0, -10, 0, 10, 20])
    errors = {
        name: (100 * own + spread).tolist()
        for name, own in zip(CORRUPTIONS, PUBLISHED, strict=True)
    }
    errors["saturate"] = [0.0] * 5
    assert list(ALEXNET_ERRORS.values()) == pytest.approx([100 * own for own in PUBLISHED])
    assert mean_relative_error(errors, ALEXNET_ERRORS) == pytest.approx(100)
    assert mean_error(errors) == pytest.approx(100 * sum(PUBLISHED) / 15)


def test_the_order_of_the_corruptions() -> None:
    """Noise, blur, weather, digital: a shuffled order would give each another's baseline."""
    assert " ".join(CORRUPTIONS) == (
        "gaussian_noise shot_noise impulse_noise defocus_blur glass_blur motion_blur zoom_blur "
        "snow frost fog brightness contrast elastic_transform pixelate jpeg_compression"
    )


def _scores(features: Tensor) -> Tensor:
    """Classes 0, 1 and 3 of four, whose scores are the features."""
    eye = torch.eye(3, dtype=torch.float64)
    own = LinearClassifier(eye, torch.zeros(3, dtype=torch.float64), torch.tensor([0, 1, 3]))
    return own.scores(features, 4)


def test_only_allowed_classes_are_predicted_and_share_the_probability() -> None:
    """Class 0 would win; among 1 and 3 the second does, with the softmax of their two scores."""
    images = LabelledFeatures(torch.tensor([[9.0, 1.0, 2.0]]), torch.tensor([3]))
    everything, restricted = (grade(_scores, images, among) for among in (None, [1, 3]))
    assert everything.answers.predicted.tolist() == [0]
    assert (everything.top1, restricted.top1) == (0, 100)
    assert restricted.answers.predicted.tolist() == [3]
    (own,) = [each for each in restricted.calibration.bins if each.count]
    assert own.confidence == pytest.approx(100 / (1 + np.exp(-1)))


def test_classes_never_trained_cannot_be_the_only_choice() -> None:
    """With class 2 alone, no probability is defined."""
    images = LabelledFeatures(torch.ones(1, 3), torch.tensor([2]))
    with pytest.raises(UserError, match="no training image is of the 1 classes"):
        grade(_scores, images, [2])


@pytest.mark.parametrize("score", [torch.nan, torch.inf])
def test_a_diverged_head_has_no_grade(score: float) -> None:
    """Scores that are not finite are one line, not a number."""
    images = LabelledFeatures(torch.tensor([[1.0, score, 0.0]]), torch.tensor([0]))
    with pytest.raises(UserError, match="scores are not finite; lower its learning rate"):
        grade(_scores, images)
