"""Ridge regression for images with several classes, against scikit-learn class by class."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from resampling import voc_average_precision
from sklearn.linear_model import Ridge
from torch import Tensor

from rsa_eval.evaluators.logistic import multi_label_ridge as module
from rsa_eval.evaluators.logistic.multi_label_ridge import multi_label_ridge
from rsa_eval.evaluators.logistic.ridge_fits import RidgeFits
from rsa_eval.evaluators.logistic.ridge_solution import RidgeSolution
from rsa_eval.evaluators.logistic.settings import SearchConfig
from rsa_eval.evaluators.shared.multi_label import Truth
from rsa_eval.records.ranking_predictions import RankingPredictions
from rsa_pretrain.plumbing.errors import UserError

Images = tuple[Tensor, Truth]

NAMES = ["a", "b", "c", "d"]
SEARCH = SearchConfig(min_exponent=-3, max_exponent=1, num_values=5)


def _images(seed: int, count: int = 40, width: int = 6) -> Images:
    """Four classes that may come together; two of them lack a label on the same images."""
    generator = np.random.default_rng(seed)
    truth = np.where(generator.random((count, 4)) < 0.4, 1, -1).astype(np.int8)
    features = 3 + generator.normal(size=(count, width))
    features[:, :4] += 0.5 * truth
    truth[::9, 0] = truth[1::7, 2] = truth[1::7, 3] = 0
    return torch.from_numpy(features), truth


def _fitted(c: float, features: npt.NDArray[Any], signs: npt.NDArray[Any]) -> Ridge:
    return Ridge(alpha=1 / c).fit(features, signs.astype(float))


def _left_out(train: Images, c: float) -> float:
    """Return the mean 11-point AP, in percent, of images scored by a refit without each."""
    features, precisions = train[0].numpy(), []
    for own in train[1].T:
        known = np.flatnonzero(own)
        scores = []
        for image in known:
            rest = known[known != image]
            scores.append(_fitted(c, features[rest], own[rest]).predict(features[[image]])[0])
        precisions.append(voc_average_precision(np.array(scores), own[known] == 1, True))
    return float(np.mean(precisions))


@pytest.mark.parametrize("width", [6, 50])
def test_equal_to_scikit_learn_class_by_class(width: int) -> None:
    """Every C's score on images left out, by refits, the chosen C and the test scores."""
    train, test = _images(0, width=width), _images(1, width=width)
    scores = multi_label_ridge(train, test, NAMES, SEARCH)
    expected = [_left_out(train, c) for c in SEARCH.strengths]
    trials = scores.details["leave_one_out"]
    assert [trial["c"] for trial in trials] == SEARCH.strengths
    assert [trial["mAP_11_points"] for trial in trials] == pytest.approx(expected, rel=1e-9)
    best = SEARCH.strengths[int(np.argmax(expected))]
    assert scores.details["C"] == best
    assert isinstance(scores.predictions, RankingPredictions)
    for place, own in enumerate(train[1].T):
        known = own != 0
        oracle = _fitted(best, train[0].numpy()[known], own[known])
        found = scores.predictions.scores[:, place]
        np.testing.assert_allclose(found, oracle.predict(test[0].numpy()), rtol=1e-7, atol=1e-9)
    assert scores.headline == "mAP_11_points"
    assert [own["class"] for own in scores.details["classes"]] == NAMES
    assert scores.value == pytest.approx(
        np.mean([own["AP_11_points"] for own in scores.details["classes"]])
    )


def test_classes_with_the_same_labels_share_a_decomposition(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Three for four classes, two of which lack labels alike; one if no label is missing."""
    made: list[int] = []

    class Noted(RidgeFits):
        def __init__(self, features: Tensor, *targets: Any) -> None:
            made.append(len(features))
            super().__init__(features, *targets)

    monkeypatch.setattr(module, "RidgeFits", Noted)
    train, test = _images(0), _images(1)
    multi_label_ridge(train, test, NAMES, SEARCH)
    assert sorted(made) == [34, 35, 40]
    made.clear()
    complete = np.where(train[1] == 0, -1, train[1]).astype(np.int8)
    multi_label_ridge((train[0], complete), test, NAMES, SEARCH)
    assert made == [40]


def test_memory_grows_with_the_classes_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not with their combinations, nor with the values of C; all scores are the same."""
    columns: list[int] = []
    strengths: list[int] = []
    solve, leave_out = RidgeSolution.__init__, RidgeSolution.without

    def solved(self: RidgeSolution, *given: Any) -> None:
        columns.append(len(given[-1]))
        solve(self, *given)

    def left_out(self: RidgeSolution, rows: slice, features: Tensor, c: list[float]) -> Any:
        strengths.append(len(c))
        return leave_out(self, rows, features, c)

    monkeypatch.setattr(RidgeSolution, "__init__", solved)
    monkeypatch.setattr(RidgeSolution, "without", left_out)
    train, test = _images(0), _images(1)
    complete = np.where(train[1] == 0, -1, train[1]).astype(np.int8)
    assert len(np.unique(complete, axis=0)) > 4
    expected = multi_label_ridge((train[0], complete), test, NAMES, SEARCH)
    assert (columns, strengths) == ([4], [5])
    monkeypatch.setattr(module, "_SCORES_AT_ONCE", 2 * complete.size)
    found = multi_label_ridge((train[0], complete), test, NAMES, SEARCH)
    assert (columns, strengths) == ([4, 4], [5, 2, 2, 1])
    assert found.details == expected.details


def test_the_test_images_do_not_choose() -> None:
    """Their mirror images change the result, and nothing of the choice."""
    train, test = _images(0), _images(1)
    ones, others = (
        multi_label_ridge(train, (sign * test[0], test[1]), NAMES, SEARCH) for sign in (1, -1)
    )
    assert ones.details["leave_one_out"] == others.details["leave_one_out"]
    assert ones.value > others.value


@pytest.mark.parametrize(("split", "value"), [("test", -1), ("training", -1), ("training", 1)])
def test_a_class_that_cannot_be_learnt(split: str, value: int) -> None:
    """The error names the class and the images that lack it, or that all are of it."""
    train, test = _images(0), _images(1)
    (test if split == "test" else train)[1][:, 1] = value
    negation = "not " if value == 1 else ""
    with pytest.raises(UserError, match=f"none of the 40 {split} images is {negation}of class b"):
        multi_label_ridge(train, test, NAMES, SEARCH)


def test_a_c_that_is_not_resolved_for_a_class_is_left_out() -> None:
    """One image's leverage is nearly 1 at large C, except for the class it is left out of."""
    (features, truth), test = _images(0), _images(1)
    features[:, 5] = 0
    features[3, 5] = 1
    truth[3, 0] = 0
    train = 1e7 * features, truth
    search = SearchConfig(min_exponent=-8, max_exponent=5, num_values=14)
    details = multi_label_ridge(train, test, NAMES, search).details
    tried = [trial["c"] for trial in details["leave_one_out"]]
    assert 0 < len(tried) < 14
    assert tried == search.strengths[: len(tried)]
    assert "float64 does not resolve leaving out an image" in details["warnings"][-1]
    alone = multi_label_ridge((train[0], truth[:, :1]), (test[0], test[1][:, :1]), ["a"], search)
    assert len(alone.details["leave_one_out"]) == 14
