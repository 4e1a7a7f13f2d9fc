"""Ridge regression in closed form against scikit-learn, and leaving out against refitting."""

import logging
import re

import numpy as np
import numpy.typing as npt
import pytest
import torch
from sklearn.linear_model import RidgeClassifier

from rsa_eval.evaluators.logistic import decomposition
from rsa_eval.evaluators.logistic.deviations import logistic_deviations
from rsa_eval.evaluators.logistic.ridge import (
    LeftOut,
    RidgePath,
    choose_left_out,
    ridge_regression,
)
from rsa_eval.evaluators.logistic.settings import LogisticConfig, SearchConfig
from rsa_eval.features.labelled import LabelledFeatures
from rsa_pretrain.plumbing.config.files import parse_tree
from rsa_pretrain.plumbing.errors import UserError

Matrix = npt.NDArray[np.float64]
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
    monkeypatch.setattr(decomposition, "_BLOCK_ROWS", 7)
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


def _weights(features: Matrix, targets: Matrix, c: float) -> tuple[Matrix, Matrix]:
    """Fit by a singular value decomposition; return weights, (D, K), and intercepts, (K,).

    Singular values below 1e-11 of the largest are those of copies, and truly zero.
    """
    mean, target_mean = features.mean(axis=0), targets.mean(axis=0)
    left, values, right = np.linalg.svd(features - mean, full_matrices=False)
    inverse = np.where(values <= 1e-11 * values[0], 0, values / (values**2 + 1 / c))
    weights = right.T @ (inverse[:, None] * (left.T @ (targets - target_mean)))
    return weights, target_mean - mean @ weights


def _refitted(train: LabelledFeatures, c: float) -> float:
    """Refit without each image, and return top-1 in percent."""
    features, labels = train.features.double().numpy(), train.labels.numpy()
    targets = 2 * np.eye(labels.max() + 1)[labels] - 1
    hits = 0
    for image in range(len(labels)):
        rest = np.arange(len(labels)) != image
        weights, intercepts = _weights(features[rest], targets[rest], c)
        hits += int((features[image] @ weights + intercepts).argmax() == labels[image])
    return 100 * hits / len(labels)


def _changed(train: LabelledFeatures, kind: str) -> LabelledFeatures:
    features = train.features.clone()
    if kind == "copies":  # the first pair of which contradicts itself
        for image, other in ((1, 0), (5, 4), (8, 2), (11, 2)):
            features[image] = features[other]
    elif kind == "constant":
        features[:, :3] = torch.tensor([0.0, 3.0, 0.1])
    elif kind == "repeated":
        features[:, 3] = features[:, 4]
    else:
        features = features.half().float()
    return LabelledFeatures(features, train.labels)


@pytest.mark.parametrize("kind", ["copies", "constant", "repeated", "half"])
@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4, 1e6])
@pytest.mark.parametrize(
    ("count", "width"), [(30, 50), (24, 24), (25, 24), (40, 24), (60, 24), (40, 8)]
)
def test_leaving_out_is_exact_at_every_shape_and_scale(
    count: int, width: int, scale: float, kind: str
) -> None:
    """No C is left out, though 1 - leverage falls to 1e-21."""
    train = _changed(_images(count, width), kind)
    train = LabelledFeatures(scale * train.features, train.labels)
    found = RidgePath(train).leave_one_out([1e-6, 1e-2, 1.0, 1e2, 1e5])
    assert len(found) == 5
    for trial in found:
        assert trial.score == pytest.approx(_refitted(train, trial.c)), trial.c


@pytest.mark.parametrize("c", [1e-6, 1.0, 1e5])
@pytest.mark.parametrize("kind", ["copies", "constant"])
@pytest.mark.parametrize(("count", "width"), [(30, 50), (24, 24), (40, 24), (60, 24)])
def test_weights_are_exact_at_a_large_scale(count: int, width: int, kind: str, c: float) -> None:
    """Scores of other images are those of a singular value decomposition, within the tolerance."""
    train, test = (_changed(_images(count, width, seed), kind) for seed in (0, 1))
    features, others = (1e4 * each.features for each in (train, test))
    targets = 2 * np.eye(3)[train.labels] - 1
    found = RidgePath(LabelledFeatures(features, train.labels)).classifier(c)
    weights, intercepts = _weights(features.double().numpy(), targets, c)
    expected = others.double().numpy() @ weights + intercepts
    np.testing.assert_allclose(found.scores(others, 3), expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_an_image_with_a_feature_of_its_own_is_right_or_no_c_is_tried(scale: float) -> None:
    """Of many images, its leverage is nearly 1, which float64 does not resolve at large C."""
    train = _images(60, 8)
    features = train.features.clone()
    features[:, 0] = 0
    features[3, 0] = 1
    train = LabelledFeatures(scale * features, train.labels)
    strengths = [1e-6, 1e-2, 1.0, 1e2, 1e5]
    found = RidgePath(train).leave_one_out(strengths)
    assert [trial.c for trial in found] == (strengths if scale == 1 else strengths[:4])
    for trial in found:
        assert trial.score == pytest.approx(_refitted(train, trial.c))


def test_of_equally_good_c_the_smallest_is_chosen_at_large_scales() -> None:
    """Where the accuracy is flat, as for features that outnumber the images."""
    train = _images(60, 100)
    train = LabelledFeatures(1e4 * train.features, train.labels)
    search = SearchConfig(min_exponent=-4, max_exponent=5, num_values=10)
    details = ridge_regression(train, train, search).details
    assert len({trial["top1"] for trial in details["leave_one_out"]}) == 1
    assert details["C"] == pytest.approx(1e-4)


def test_a_c_that_float64_does_not_resolve_is_left_out(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The record says so; if none is resolved, that is an error."""
    images = _changed(_images(60, 8), "constant")
    train = LabelledFeatures(1e10 * images.features, images.labels)
    search = SearchConfig(min_exponent=-6, max_exponent=5, num_values=12)
    with caplog.at_level(logging.WARNING):
        details = ridge_regression(train, train, search).details
    tried = [trial["c"] for trial in details["leave_one_out"]]
    assert 0 < len(tried) < 12
    assert tried == search.strengths[: len(tried)]
    (text,) = [text for text in details["warnings"] if "float64" in text]
    skipped = f"{12 - len(tried)} values of C, {search.strengths[len(tried)]:g} to 100000,"
    assert text == (
        f"float64 does not resolve leaving out an image at {skipped} for features of this size, so "
        "that no better C was looked for there; multiply all features, of training and test "
        "images, by one small number, such as 0.001, or lower search.max_exponent"
    )
    assert text in caplog.text


@pytest.mark.parametrize(
    ("num_values", "values"), [(12, "12 values of C, 1e-06 to 100000,"), (1, "C = 1e-06,")]
)
def test_the_error_if_no_c_is_resolved(num_values: int, values: str) -> None:
    """It says what follows and what to do; both pieces of advice work."""
    images = _changed(_images(60, 8), "constant")
    huge = LabelledFeatures(1e15 * images.features, images.labels)
    search = SearchConfig(min_exponent=-6, max_exponent=5, num_values=num_values)
    expected = (
        f"float64 does not resolve leaving out an image at {values} for features of this size, so "
        "that no C can be chosen; multiply all features, of training and test images, by one small "
        "number, such as 0.001, or lower search.min_exponent and search.max_exponent"
    )
    with pytest.raises(UserError, match=f"^{re.escape(expected)}$"):
        ridge_regression(huge, huge, search)
    scaled = LabelledFeatures(1e-15 * huge.features, images.labels)
    assert ridge_regression(scaled, scaled, search).value > 50
    lower = SearchConfig(min_exponent=-36, max_exponent=-25, num_values=num_values)
    assert ridge_regression(huge, huge, lower).value > 30


def test_a_single_c_is_no_choice() -> None:
    """If one alone is searched, more are advised; if one alone is resolved, they are not."""
    images = _images()
    alone = SearchConfig(min_exponent=0, max_exponent=0, num_values=1)
    assert ridge_regression(images, images, alone).details["warnings"] == [
        "no C was chosen: 1 alone was tried; raise search.num_values"
    ]
    trials = [LeftOut(1e-6, 40.0)]
    _, details = choose_left_out(trials, SearchConfig(num_values=12), "top1")
    alone_text, unresolved = details["warnings"]
    assert alone_text == "no C was chosen: 1e-06 alone was tried"
    assert "at 11 values of C, 1e-05 to 100000, for features of this size" in unresolved


@pytest.mark.parametrize(
    ("scores", "advice"),
    [((50.0, 40.0, 30.0), ", or standardise or scale the features"), ((30.0, 40.0, 50.0), "")],
)
def test_the_best_c_at_the_edge_is_doubted(scores: tuple[float, ...], advice: str) -> None:
    """At the smallest C the features may be too large."""
    search = SearchConfig(min_exponent=0, max_exponent=2, num_values=3)
    trials = [LeftOut(c, score) for c, score in zip(search.strengths, scores, strict=True)]
    _, details = choose_left_out(trials, search, "top1")
    assert details["warnings"] == [
        "the best C is at the edge of the range tried, 1 to 100; widen search.min_exponent and "
        f"search.max_exponent{advice}"
    ]


@pytest.mark.parametrize("value", [0.0, 1.0, 0.1])
@pytest.mark.parametrize("width", [40, 20, 15, 8])
def test_of_equal_features_the_largest_class_is_predicted(width: int, value: float) -> None:
    """As every fit without an image does, of 12, 5 and 3; of a collapsed network."""
    labels = torch.tensor([0] * 12 + [1] * 5 + [2] * 3)
    train = LabelledFeatures(torch.full((20, width), value), labels)
    scores = ridge_regression(train, train)
    trials = scores.details["leave_one_out"]
    assert len(trials) == 45
    assert [trial["top1"] for trial in trials] == pytest.approx([60.0] * 45)
    assert scores.value == pytest.approx(60)
    features = decomposition.CentredFeatures.of(train.features, torch.device("cpu"))
    assert decomposition.decompose_precisely(features).error(1.0) < 1e-9


def test_many_images_take_no_matrix_of_their_pairs() -> None:
    """100,000 of them would take 75 GiB; also where the quick decomposition does not suffice."""
    train = _changed(_images(100_000, 8), "constant")
    train = LabelledFeatures(1e6 * train.features, train.labels)
    (found,) = RidgePath(train).leave_one_out([1e5])
    assert found.score > 50


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


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_no_resizing_departs_from_a_protocol_without_published_images(interpolation: str) -> None:
    """Only settings of the search are compared with defaults."""
    tree = {
        "protocol": "ridge",
        "data": {"name": "digits", "image_size": 32, "eval_interpolation": interpolation},
    }
    assert logistic_deviations(parse_tree(LogisticConfig, tree, "test")) == []


def test_the_mean_over_the_classes_ties_in_any_order() -> None:
    """The same shares of right images, of other classes, are equally good."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(70) % 7
    train = LabelledFeatures(torch.randn(70, 3, generator=generator), labels)
    strengths = SearchConfig().strengths
    found = RidgePath(train).leave_one_out(strengths, "mean_per_class")
    moved = LabelledFeatures(train.features, 6 - labels)
    assert found == RidgePath(moved).leave_one_out(strengths, "mean_per_class")


def test_images_of_different_classes_are_refused() -> None:
    """Without its only image a class is unknown, so that no C would be better than another."""
    train = LabelledFeatures(_images(5).features, torch.arange(5))
    with pytest.raises(UserError, match="all 5 training images are of different classes"):
        ridge_regression(train, train)
