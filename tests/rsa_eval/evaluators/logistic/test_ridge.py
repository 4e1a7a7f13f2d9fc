"""Ridge regression in closed form against scikit-learn, and leaving out against refitting."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import RidgeClassifier

from rsa_eval.evaluators.logistic import ridge
from rsa_eval.evaluators.logistic.ridge import RidgePath, ridge_regression
from rsa_eval.evaluators.logistic.settings import SearchConfig
from rsa_eval.features.labelled import LabelledFeatures
from rsa_pretrain.plumbing.errors import UserError

STRENGTHS = [1e-4, 1e-2, 1.0, 100.0]


def _images(count: int = 60, width: int = 8, seed: int = 0) -> LabelledFeatures:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    centres = torch.randn(3, width, generator=torch.Generator().manual_seed(9))
    return LabelledFeatures(
        2.0 + centres[labels] + 1.5 * torch.randn(count, width, generator=generator), labels
    )


@pytest.mark.parametrize(("count", "width"), [(60, 8), (20, 40)])
@pytest.mark.parametrize("c", STRENGTHS)
def test_weights_equal_scikit_learns(count: int, width: int, c: float) -> None:
    """With alpha = 1 / C, of more images than features and of fewer."""
    train = _images(count, width)
    oracle = RidgeClassifier(alpha=1 / c)
    oracle.fit(train.features.double().numpy(), train.labels.numpy())
    found = RidgePath(train).classifier(c)
    np.testing.assert_allclose(found.weights.T, oracle.coef_, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(found.intercepts, oracle.intercept_, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(("count", "width"), [(60, 8), (20, 40)])
def test_leaving_out_equals_refitting(
    monkeypatch: pytest.MonkeyPatch, count: int, width: int
) -> None:
    """Of every image, in blocks that do not divide their number."""
    monkeypatch.setattr(ridge, "_BLOCK_ROWS", 7)
    train = _images(count, width)
    features, labels = train.features.double().numpy(), train.labels.numpy()
    found = RidgePath(train).leave_one_out(STRENGTHS)
    for trial in found:
        hits = 0
        for image in range(count):
            rest = np.arange(count) != image
            oracle = RidgeClassifier(alpha=1 / trial.c).fit(features[rest], labels[rest])
            hits += int(oracle.predict(features[[image]])[0] == labels[image])
        assert trial.score == pytest.approx(100 * hits / count)
    assert len({trial.score for trial in found}) > 1


def test_the_best_on_images_left_out_is_tested() -> None:
    """The smallest of equally good C, whose accuracy on the test images is scikit-learn's."""
    train, test = _images(), _images(seed=1)
    search = SearchConfig(min_exponent=-4, max_exponent=2, num_values=7)
    scores = ridge_regression(train, test, search)
    trials = scores.details["leave_one_out"]
    best = max(trial["top1"] for trial in trials)
    assert scores.details["C"] == next(trial["c"] for trial in trials if trial["top1"] == best)
    oracle = RidgeClassifier(alpha=1 / scores.details["C"])
    oracle.fit(train.features.numpy(), train.labels.numpy())
    expected = 100 * oracle.score(test.features.numpy(), test.labels.numpy())
    assert scores.value == pytest.approx(expected)
    assert scores.predictions is not None


@pytest.mark.parametrize(("headline", "chosen"), [("top1", 1e-3), ("mean_per_class", 1.0)])
def test_the_headline_chooses(headline: str, chosen: float) -> None:
    """Of 30, 6 and 4 images of three classes; refitted for each image that is left out."""
    generator = torch.Generator().manual_seed(20)
    labels = torch.tensor([0] * 30 + [1] * 6 + [2] * 4)
    centres = torch.randn(3, 4, generator=torch.Generator().manual_seed(9))
    train = LabelledFeatures(
        centres[labels] + 1.5 * torch.randn(40, 4, generator=generator), labels
    )
    search = SearchConfig(min_exponent=-3, max_exponent=0, num_values=4)
    details = ridge_regression(train, train, search, headline=headline).details
    features, classes = train.features.double().numpy(), labels.numpy()
    rest = ~np.eye(40, dtype=bool)
    for trial in details["leave_one_out"]:
        oracle = RidgeClassifier(alpha=1 / trial["c"])
        right = np.array(
            [
                oracle.fit(features[own], classes[own]).predict(features[[image]])[0]
                == classes[image]
                for image, own in enumerate(rest)
            ]
        )
        by_class = [right[classes == label].mean() for label in range(3)]
        expected = right.mean() if headline == "top1" else np.mean(by_class)
        assert trial[headline] == pytest.approx(100 * expected)
    assert details["C"] == pytest.approx(chosen)


def test_a_class_without_training_images_is_never_predicted() -> None:
    """Its images are wrong; and a single class is refused."""
    train = _images()
    unknown = LabelledFeatures(train.features[:5], torch.full((5,), 3))
    scores = ridge_regression(train, unknown, num_classes=4)
    assert scores.value == 0
    same = LabelledFeatures(train.features, torch.zeros(60, dtype=torch.int64))
    with pytest.raises(UserError, match="are of class 0; an evaluation needs two classes or more"):
        ridge_regression(same, same)
