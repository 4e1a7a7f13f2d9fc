import logging
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from rsa_eval.evaluators import Workspace
from rsa_eval.evaluators.knn.settings import KNNConfig
from rsa_eval.evaluators.logistic.choice import choose_c
from rsa_eval.evaluators.logistic.deviations import logistic_deviations
from rsa_eval.evaluators.logistic.evaluator import evaluate_logistic, fit_chosen
from rsa_eval.evaluators.logistic.fit import Fitter, LogisticFit, answers_of
from rsa_eval.evaluators.logistic.objective import MeanLoss, Point
from rsa_eval.evaluators.logistic.settings import LogisticConfig, SearchConfig
from rsa_eval.features.labelled import LabelledFeatures
from rsa_eval.features.subject import Subject
from rsa_pretrain.plumbing.config.files import parse_tree, to_tree
from rsa_pretrain.plumbing.errors import UserError

Matrix = npt.NDArray[np.float64]


def _features(seed: int = 0, num_classes: int = 3, count: int = 60) -> LabelledFeatures:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % num_classes
    centres = torch.randn(num_classes, 4, generator=torch.Generator().manual_seed(99))
    noise = torch.randn(count, 4, generator=generator)
    return LabelledFeatures(centres[labels] + noise, labels)


def _fitter(train: LabelledFeatures, **changes: Any) -> Fitter:
    return Fitter(train, **({"max_iterations": 1000, "tolerance": 1e-8} | changes))


def _literal_fit(train: LabelledFeatures, c: float, intercept: bool) -> tuple[Matrix, Matrix]:
    """Minimise C Σ loss + |W|² / 2 as it is written, image by image, without a gradient."""
    features, labels = train.features.double().numpy(), train.labels.numpy()
    num_classes, width = labels.max() + 1, features.shape[1]

    def objective(flat: Matrix) -> float:
        weights = flat[: num_classes * width].reshape(num_classes, width)
        biases = flat[num_classes * width :] if intercept else np.zeros(num_classes)
        total = 0.5 * float((weights**2).sum())
        for x, label in zip(features, labels, strict=True):
            logits = weights @ x + biases
            top = logits.max()
            total += c * float(top + np.log(np.exp(logits - top).sum()) - logits[label])
        return total

    size = num_classes * (width + intercept)
    found = minimize(objective, np.zeros(size), method="BFGS", options={"gtol": 1e-5}).x
    biases = found[num_classes * width :] if intercept else np.zeros(num_classes)
    return found[: num_classes * width].reshape(num_classes, width), biases


@pytest.mark.parametrize(("c", "intercept"), [(0.03, True), (2.0, True), (2.0, False)])
def test_equal_to_the_objective_minimised_literally(c: float, intercept: bool) -> None:
    """The weights are where C Σ loss + |W|²/2 is smallest, the intercepts unpenalised."""
    train = _features()
    found = _fitter(train, intercept=intercept).fit(c).classifier
    weights, biases = _literal_fit(train, c, intercept)
    # The oracle's numerical gradient is good to four digits.
    np.testing.assert_allclose(found.weights.T, weights, atol=2e-4)
    intercepts = found.intercepts.numpy()
    np.testing.assert_allclose(intercepts - intercepts.mean(), biases - biases.mean(), atol=2e-4)


def test_warm_starts_end_where_cold_starts_do() -> None:
    """Going up in C from fit to fit gives the weights of a fresh fit at the last C."""
    train = _features()
    warm = _fitter(train)
    fits = [warm.fit(c) for c in (1e-4, 1e-2, 1.0)]
    cold = LogisticRegression(C=1.0, tol=1e-8, max_iter=1000)
    cold.fit(train.features.double().numpy(), train.labels.numpy())
    np.testing.assert_allclose(fits[-1].classifier.weights.T, cold.coef_, atol=1e-4)
    assert fits[0].classifier.weights.norm() < fits[1].classifier.weights.norm()
    assert all(fit.converged for fit in fits)


def test_two_classes_and_a_class_never_seen() -> None:
    """Of two classes both get a score; a class without training images is never right."""
    train, test = _features(num_classes=2), _features(seed=1, num_classes=2, count=40)
    fit = _fitter(train).fit(1.0)
    oracle = LogisticRegression(tol=1e-8).fit(train.features.numpy(), train.labels.numpy())
    expected = oracle.score(test.features.numpy(), test.labels.numpy())
    counts = answers_of(fit.classifier, test, num_classes=2).counts
    assert counts.top1 == round(expected * 40) > 20
    third = LabelledFeatures(test.features, torch.full((40,), 2))
    counts = answers_of(fit.classifier, third, num_classes=3).counts
    assert (counts.top1, counts.top5) == (0, 0)


def test_one_class_is_refused() -> None:
    """A single class cannot be fitted."""
    train = _features()
    with pytest.raises(
        UserError,
        match=r"training images are of class \d; logistic regression needs two classes or more$",
    ):
        _fitter(LabelledFeatures(train.features, torch.zeros(60, dtype=torch.int64)))


def test_of_equally_good_strengths_the_smallest() -> None:
    """The held-out accuracies decide; C's edge is noticed on both sides."""
    train, held_out = _features(), _features(seed=1)

    def top1(fit: LogisticFit) -> float:
        return answers_of(fit.classifier, held_out, 3).counts.top1_percent

    choice = choose_c(_fitter(train).fit, top1, [1e-3, 1e-1, 10.0, 1e3])
    best = max(trial.score for trial in choice.trials)
    assert choice.c == next(trial.c for trial in choice.trials if trial.score == best)
    assert choose_c(_fitter(train).fit, top1, [10.0, 1e3]).at_edge
    assert not choose_c(_fitter(train).fit, top1, [10.0]).at_edge


@pytest.mark.parametrize(
    ("headline", "weak", "strong"),
    [("top1", 1300 / 15, 1200 / 15), ("mean_per_class", 50, (1000 / 13 + 100) / 2)],
)
def test_the_headline_chooses(headline: str, weak: float, strong: float) -> None:
    """By hand: 13 and 2 images are held out, of which 3 and 2 have a feature of 1, others of 0.

    A small C gives all to the larger class. A large one gives those of feature 1 to the other, of
    which most of them are where it is fitted.
    """
    groups = [(0, 0, 40), (0, 1, 1), (1, 0, 4), (1, 1, 8), (0, 0, 10), (1, 0, 3), (1, 1, 2)]
    rows = torch.tensor([[feature, label] for feature, label, n in groups for _ in range(n)])
    images = LabelledFeatures(rows[:, :1].float(), rows[:, 1])
    search = SearchConfig(min_exponent=-6, max_exponent=2, num_values=2)
    held_out = np.arange(53, 68)
    details = fit_chosen(
        images, search, num_classes=2, validation=held_out, headline=headline
    ).details
    assert [trial[headline] for trial in details["held_out"]] == pytest.approx([weak, strong])
    assert details["C"] == pytest.approx(1e-6 if weak > strong else 100)


def test_the_published_strengths() -> None:
    """DINOv2 tries 45 values from 10^-6 to 10^5, a quarter of a decade apart."""
    strengths = SearchConfig().strengths
    assert (len(strengths), strengths[0], strengths[-1]) == (45, 1e-6, 1e5)
    assert strengths[1] / strengths[0] == pytest.approx(10**0.25)


def _config(knn_config: KNNConfig, **search: Any) -> LogisticConfig:
    few = {"num_values": 5, "min_exponent": -3, "max_exponent": 1, "held_out_percent": 20}
    tree = {"data": to_tree(knn_config.data), "device": "cpu", "batch_size": 16}
    return parse_tree(LogisticConfig, tree | {"search": few | search}, "test")


def test_a_whole_evaluation(
    wide_subject: Subject, knn_config: KNNConfig, workspace: Workspace
) -> None:
    """The record holds the choice with its curve, counts each test image once, and repeats."""
    config = _config(knn_config)
    result = evaluate_logistic(wide_subject, config, workspace)
    assert result.num_samples == 30
    assert [trial["c"] for trial in result.details["held_out"]] == config.search.strengths
    assert result.details["C"] in config.search.strengths
    assert result.details["converged"]
    assert result.metrics["top1"].value > 50
    assert "num_values 5 (protocol: 45)" in result.deviations
    again = evaluate_logistic(wide_subject, config, workspace)
    assert again.metrics == result.metrics
    assert again.details["held_out"] == result.details["held_out"]


@pytest.mark.parametrize(
    ("data", "deviation"),
    [
        ({}, "bilinear resizing (protocol: bicubic)"),
        ({"eval_resize": 40}, "short side resized to 40 (protocol: 224)"),
        ({}, "preconditioned L-BFGS, tolerance 1e-07 (protocol: cuML's, 1e-12)"),
        ({}, "held out by class (protocol: of all images alike)"),
    ],
)
def test_departures_from_the_original_code_are_listed(
    knn_config: KNNConfig, data: dict[str, Any], deviation: str
) -> None:
    """The record lists differences from DINOv2's code."""
    tree = {"data": to_tree(knn_config.data) | data}
    assert deviation in logistic_deviations(parse_tree(LogisticConfig, tree, "test"))


def test_another_seed_holds_out_other_images(
    subject: Subject, knn_config: KNNConfig, workspace: Workspace
) -> None:
    """The curve on twelve held-out images differs, the number of fits does not."""
    config = _config(knn_config)
    other = parse_tree(LogisticConfig, to_tree(config) | {"seed": 1}, "test")
    first, second = (
        evaluate_logistic(subject, which, workspace).details["held_out"]
        for which in (config, other)
    )
    assert first != second
    assert len(first) == len(second)


def test_an_edge_and_a_fit_cut_short_are_reported(
    subject: Subject,
    knn_config: KNNConfig,
    workspace: Workspace,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Both stand in the record and in a warning; nothing fails."""
    config = _config(knn_config, num_values=2, min_exponent=0, max_iterations=2)
    with caplog.at_level(logging.WARNING):
        result = evaluate_logistic(subject, config, workspace)
    assert result.details["C_at_edge"]
    is_smallest = result.details["C"] == 1
    assert not result.details["converged"]
    assert [trial["converged"] for trial in result.details["held_out"]] == [False, False]
    assert result.details["warnings"] == [
        "the best C is at the edge of the range tried, 1 to 10; widen search.min_exponent and "
        "search.max_exponent" + (", or standardise or scale the features" * is_smallest),
        "the final fit did not converge in 2 iterations",
        "2 of 2 fits to choose C did not converge in 2 iterations",
    ]
    assert all(text in caplog.text for text in result.details["warnings"])


def test_a_single_c_is_doubted(
    subject: Subject, knn_config: KNNConfig, workspace: Workspace
) -> None:
    """Nothing was chosen, and the record says so."""
    result = evaluate_logistic(subject, _config(knn_config, num_values=1), workspace)
    assert "no C was chosen: 0.001 alone was tried" in result.details["warnings"][0]


@pytest.mark.parametrize(
    ("num_train_images", "message"),
    [
        (10, "each of 10 classes has a single training image, so none can be held out"),
        (20, r"1 % of 20 training images holds out none .* set search\.held_out_percent=50, which"),
    ],
)
def test_too_few_images_to_hold_any_out(
    subject: Subject,
    knn_config: KNNConfig,
    workspace: Workspace,
    num_train_images: int,
    message: str,
) -> None:
    """One image per class is needed to learn it, and the share that helps is named."""
    tree = to_tree(_config(knn_config))
    tree["data"] |= {"num_train_images": num_train_images}
    tree["search"]["held_out_percent"] = 1
    with pytest.raises(UserError, match=message):
        evaluate_logistic(subject, parse_tree(LogisticConfig, tree, "test"), workspace)


def test_exponents_the_wrong_way_round() -> None:
    """An empty range is refused when the config is loaded."""
    tree = {"data": {"name": "digits", "image_size": 32}, "search": {"min_exponent": 6}}
    with pytest.raises(UserError, match="min_exponent 6 is above max_exponent 5"):
        parse_tree(LogisticConfig, tree, "test")


def test_few_features_are_fitted_in_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the number of threads outside, which stays as it was."""
    seen: set[int] = set()
    evaluate = MeanLoss.at

    def noted(self: MeanLoss, coefficients: Tensor) -> Point:
        seen.add(torch.get_num_threads())
        return evaluate(self, coefficients)

    monkeypatch.setattr(MeanLoss, "at", noted)
    images = LabelledFeatures(torch.randn(20, 4), torch.arange(20) % 2)
    outside = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        Fitter(images, max_iterations=9, tolerance=1e-3).fit(1.0)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(outside)
    assert seen == {1}
