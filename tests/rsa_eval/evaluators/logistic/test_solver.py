"""The solver of logistic regression against scikit-learn and the formulas."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import log_softmax
from sklearn.datasets import load_iris, load_wine
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from rsa_eval.evaluators.logistic import objective
from rsa_eval.evaluators.logistic.evaluator import logistic_regression
from rsa_eval.evaluators.logistic.fit import Fitter, LinearClassifier
from rsa_eval.evaluators.logistic.minimise import PathSolver
from rsa_eval.evaluators.logistic.newton import newton_step
from rsa_eval.evaluators.logistic.objective import Loss, MeanLoss, sigmoid_loss, softmax_loss
from rsa_eval.evaluators.logistic.settings import SearchConfig
from rsa_eval.features.labelled import LabelledFeatures
from rsa_pretrain.plumbing.errors import UserError

_TOLERANCE = SearchConfig().tolerance


def _features(
    count: int = 300, width: int = 40, num_classes: int = 7, seed: int = 0
) -> LabelledFeatures:
    """Return features like a network's: not negative, anisotropic, with classes that overlap."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % num_classes
    scale = torch.arange(1, width + 1) ** -0.5
    centres = torch.randn(num_classes, width, generator=torch.Generator().manual_seed(99))
    noise = torch.randn(count, width, generator=generator)
    return LabelledFeatures(((0.6 * centres[labels] + noise) * scale + 0.3).relu(), labels)


def _objective(train: LabelledFeatures, found: LinearClassifier, c: float) -> float:
    """Return C Σ loss + |W|² / 2 in float64, for two classes as scikit-learn has it."""
    scores = found.scores(train.features, len(found.classes)).numpy()
    own = log_softmax(scores, axis=1)[np.arange(len(scores)), train.labels.numpy()]
    return float(-c * own.sum() + found.weights.square().sum() / 2)


def _oracle(train: LabelledFeatures, c: float, **changes: Any) -> LinearClassifier:
    estimator = LogisticRegression(C=c, tol=1e-9, max_iter=100_000, **changes)
    estimator.fit(train.features.double().numpy(), train.labels.numpy())
    weights, intercepts = (
        torch.from_numpy(each) for each in (estimator.coef_.T, estimator.intercept_)
    )
    if weights.shape[1] == 1:
        weights, intercepts = (
            torch.cat([torch.zeros_like(each), each], dim=-1) for each in (weights, intercepts)
        )
    return LinearClassifier(weights, intercepts, torch.arange(weights.shape[1]))


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize(
    ("count", "width", "num_classes"), [(300, 40, 7), (200, 30, 2), (60, 90, 5)]
)
def test_equal_to_scikit_learn_along_the_path(
    count: int, width: int, num_classes: int, intercept: bool
) -> None:
    """Objectives agree to 1e-6, of separable and inseparable images, fewer than features or not.

    So do 99.9 % of the predictions, where the two largest logits differ by a hundredth of a
    standard deviation.
    """
    train = _features(count, width, num_classes)
    test = _features(2000, width, num_classes, seed=1)
    fitter = Fitter(train, max_iterations=1000, tolerance=_TOLERANCE, intercept=intercept)
    for c in np.logspace(-6, 3, 19):
        fit = fitter.fit(float(c))
        # At small C scikit-learn's L-BFGS may stop where the gradient is small, far from the end.
        solver = "newton-cholesky" if c < 1e-3 else "lbfgs"
        expected = _oracle(train, float(c), fit_intercept=intercept, solver=solver)
        assert fit.converged
        ours, theirs = (_objective(train, each, c) for each in (fit.classifier, expected))
        assert ours == pytest.approx(theirs, rel=1e-6)
        scores = [each.scores(test.features, num_classes) for each in (fit.classifier, expected)]
        answers = [each.argmax(dim=1) for each in scores]
        best = scores[1].topk(2, dim=1).values
        is_clear = best[:, 0] - best[:, 1] > 1e-2 * (scores[1] - expected.intercepts).std()
        assert is_clear.float().mean() > 0.8
        assert (answers[0] == answers[1])[is_clear].float().mean() >= 0.999


def test_the_optimum_is_reached_where_warm_starts_have_no_slope() -> None:
    """At large C the gradient is tiny far from the minimum; a fit from zero ends as low."""
    train = _features(60, 90, 5)
    path = Fitter(train, max_iterations=1000, tolerance=_TOLERANCE)
    for c in np.logspace(-2, 5, 29):
        warm = path.fit(float(c))
    cold = Fitter(train, max_iterations=5000, tolerance=1e-9).fit(1e5)
    found, lowest = (_objective(train, each.classifier, 1e5) for each in (warm, cold))
    assert found == pytest.approx(lowest, rel=1e-6)


@pytest.mark.parametrize("kind", ["collapsed", "far from zero", "repeated", "constant", "tiny"])
def test_degenerate_features_are_fitted(kind: str) -> None:
    """A collapsed network's features span few dimensions, far from zero, or none."""
    train = _features()
    generator = torch.Generator().manual_seed(1)
    collapsed = train.features[:, :3] @ torch.randn(3, 40, generator=generator)
    features = {
        "collapsed": collapsed,
        "far from zero": collapsed + 50,
        "repeated": torch.cat([train.features[:, :20]] * 2, dim=1),
        "constant": torch.ones(300, 40),
        "tiny": train.features * 1e-6,
    }[kind]
    train = LabelledFeatures(features, train.labels)
    path = Fitter(train, max_iterations=1000, tolerance=_TOLERANCE)
    for place, c in enumerate(SearchConfig().strengths):
        fit = path.fit(c)
        assert fit.converged
        if place % 4:
            continue
        ours, theirs = (_objective(train, each, c) for each in (fit.classifier, _oracle(train, c)))
        assert ours <= theirs * (1 + 1e-6)


def test_rounding_along_all_intercepts_is_no_distance() -> None:
    """A constant added to them changes nothing, and what rounding leaves of it promises nothing."""
    for seed in range(12):
        generator = torch.Generator().manual_seed(seed)
        features = 1e-6 * torch.randn(300, 40, generator=generator)
        targets = torch.randint(7, (300,), generator=generator)
        loss = MeanLoss(features, targets, softmax_loss, 7)
        loss.product_dtype = torch.float64
        coefficients = torch.zeros(loss.shape, dtype=torch.float64)
        coefficients[-1] = torch.randn(7, generator=generator)
        rounding = torch.zeros_like(coefficients)
        rounding[-1] = 1e-17
        point = replace(loss.at(coefficients), loss_gradient=rounding)
        step = newton_step(loss, 1.0, point, lambda gradient: gradient, 50)
        assert step.decrease == pytest.approx(7 * 1e-34 / 2)
        assert not step.direction.any()


def test_features_whose_products_overflow_are_an_error() -> None:
    """Their fit would be NaN."""
    train = _features()
    large = LabelledFeatures(train.features * 1e20, train.labels)
    with pytest.raises(UserError, match="overflow float32; divide features by a constant"):
        Fitter(large, max_iterations=10, tolerance=_TOLERANCE).fit(1.0)


@pytest.mark.parametrize(("loss", "num_outputs"), [(softmax_loss, 5), (sigmoid_loss, 5)])
def test_slopes_and_curvatures_are_derivatives(loss: Loss, num_outputs: int) -> None:
    """They equal what torch differentiates."""
    generator = torch.Generator().manual_seed(0)
    logits = (3 * torch.randn(6, num_outputs, generator=generator)).double().requires_grad_()
    if loss is softmax_loss:
        targets = torch.arange(6) % num_outputs
        outcome = torch.nn.functional.cross_entropy(logits, targets, reduction="sum")
    else:
        targets = torch.randint(-1, 2, (6, num_outputs), generator=generator)
        outcome = torch.nn.functional.binary_cross_entropy_with_logits(
            logits, (targets == 1).double(), weight=(targets != 0).double(), reduction="sum"
        )
    (slope,) = torch.autograd.grad(outcome, logits, create_graph=True)
    second = torch.stack(
        [
            torch.autograd.grad(slope[:, output].sum(), logits, retain_graph=True)[0][:, output]
            for output in range(num_outputs)
        ],
        dim=1,
    )
    found = loss(logits.detach(), targets)
    torch.testing.assert_close(found.loss, outcome.detach())
    torch.testing.assert_close(found.slope, slope.detach())
    torch.testing.assert_close(found.curvature, second)
    direction = torch.randn(6, num_outputs, generator=generator).double()
    (expected,) = torch.autograd.grad((slope * direction).sum(), logits)
    torch.testing.assert_close(found.curve(direction), expected)


def test_a_loss_near_zero_keeps_its_digits() -> None:
    """Of an image whose class has probability 1 - 1e-12, loss and slope are 1e-12, not 0."""
    found = softmax_loss(torch.tensor([[0.0, np.log(1e-12)]]).double(), torch.tensor([0]))
    assert float(found.loss) == pytest.approx(1e-12, rel=1e-3)
    assert float(found.slope[0, 0]) == pytest.approx(-1e-12, rel=1e-3)


def test_blocks_and_rows_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small blocks, of chosen rows of half-precision features, give the same sums."""
    train = _features()
    rows = torch.arange(0, 300, 2)
    own = MeanLoss(train.features[rows].half().float(), train.labels[rows], softmax_loss, 7)
    coefficients = torch.randn(41, 7, generator=torch.Generator().manual_seed(0)).double()
    whole = own.at(coefficients)
    monkeypatch.setattr(objective, "_BLOCK_VALUES", 1000)
    blocks = MeanLoss(train.features.half(), train.labels[rows], softmax_loss, 7, rows=rows)
    assert len(list(blocks._blocks())) == 11
    point = blocks.at(coefficients)
    assert point.loss == pytest.approx(whole.loss, rel=1e-6)
    torch.testing.assert_close(point.loss_gradient, whole.loss_gradient, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(point.curvature, whole.curvature, rtol=1e-5, atol=1e-7)
    for num_groups in (1, 7):
        found, expected = (each.hessians(coefficients, num_groups) for each in (blocks, own))
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-7)


def test_newton_steps_and_hessians_are_those_of_the_whole_hessian() -> None:
    """Blocks of it, its products and its solution equal those of what torch differentiates."""
    train = _features(50, 4, 3)
    loss = MeanLoss(train.features, train.labels, softmax_loss, 3)
    loss.product_dtype = torch.float64
    coefficients = torch.randn(5, 3, generator=torch.Generator().manual_seed(0)).double()
    features = torch.cat([train.features.double(), torch.ones(50, 1).double()], dim=1)
    whole = torch.autograd.functional.hessian(
        lambda each: torch.nn.functional.cross_entropy(features @ each, train.labels), coefficients
    )
    blocks = torch.stack([whole[:, k, :, k] for k in range(3)])
    torch.testing.assert_close(loss.hessians(coefficients, 3), blocks)
    torch.testing.assert_close(loss.hessians(coefficients, 1), blocks.mean(dim=0, keepdim=True))
    direction = torch.randn(5, 3, generator=torch.Generator().manual_seed(1)).double()
    product = torch.einsum("dkel,el->dk", whole, direction)
    torch.testing.assert_close(loss.hessian_product(coefficients, direction), product)
    penalised = whole.reshape(15, 15) + 0.1 * torch.diag((torch.arange(15) < 12).double())
    point = loss.at(coefficients)
    step = newton_step(loss, 0.1, point, lambda gradient: gradient, 1000)
    gradient = point.gradient(0.1).flatten()
    taken = step.direction.flatten()
    assert step.decrease == pytest.approx(-float(taken @ (gradient + penalised @ taken / 2)))
    lowest = float(gradient @ torch.linalg.lstsq(penalised, gradient).solution) / 2
    assert 0.8 * lowest < step.decrease <= lowest * (1 + 1e-12)  # but for rounding


def test_ill_conditioned_features_are_fitted_to_the_optimum() -> None:
    """Where L-BFGS takes many steps, its estimate of the distance is too small by far."""
    train = _features(600, 12, 8)
    mixing = torch.linalg.qr(torch.randn(12, 12, generator=torch.Generator().manual_seed(0))).Q
    spread = LabelledFeatures(train.features * torch.logspace(0, -2, 12) @ mixing, train.labels)
    fitter = Fitter(spread, max_iterations=1000, tolerance=_TOLERANCE)
    for c in (1e2, 1e4, 1e6):
        fit = fitter.fit(c)
        assert fit.converged
        expected = _objective(spread, _oracle(spread, c, solver="newton-cholesky"), c)
        assert _objective(spread, fit.classifier, c) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("kind", ["two classes", "few images", "several classes"])
def test_features_far_from_zero_are_fitted_to_the_optimum(kind: str) -> None:
    """A common offset of 1,000, which the intercepts make up for, changes no minimum."""
    count, width, num_classes = {
        "two classes": (200, 20, 2),
        "few images": (30, 50, 2),
        "several classes": (200, 20, 5),
    }[kind]
    train = _features(count, width, num_classes)
    far = LabelledFeatures(train.features + 1000, train.labels)
    centred = far.features.double() - far.features.double().mean(dim=0)
    train = LabelledFeatures(centred, train.labels)
    fitter = Fitter(far, max_iterations=1000, tolerance=_TOLERANCE)
    for c in np.logspace(-5, 5, 11):
        fit = fitter.fit(float(c))
        assert fit.converged
        expected = _objective(train, _oracle(train, float(c), solver="newton-cholesky"), c)
        assert _objective(far, fit.classifier, c) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("kind", ["contradictory", "wine", "iris"])
def test_an_early_end_of_l_bfgs_is_checked(kind: str) -> None:
    """Its own estimate of the distance took points for the minimum that were 1e-6 to 1e-5 away."""
    if kind == "contradictory":  # each image twice, of two classes
        once = _features(60, 70, 4)
        train = LabelledFeatures(
            once.features.repeat(2, 1), torch.cat([once.labels, (once.labels + 1) % 4])
        )
    else:
        values, labels = (load_wine if kind == "wine" else load_iris)(return_X_y=True)
        values = (values - values.mean(axis=0)) / values.std(axis=0)
        train = LabelledFeatures(torch.from_numpy(values).float(), torch.from_numpy(labels).long())
    fitter = Fitter(train, max_iterations=1000, tolerance=_TOLERANCE)
    for c in SearchConfig().strengths:
        found = _objective(train, fitter.fit(c).classifier, c)
        expected = _objective(train, _oracle(train, c, solver="newton-cholesky"), c)
        assert found == pytest.approx(expected, rel=1e-6)


def test_a_fit_of_other_classes_is_no_start() -> None:
    """Published validation images may be all of a class that only the final fit has."""
    train = _features(300, 20, 3)
    rest = torch.arange(300)[train.labels < 2]
    first = Fitter(train, max_iterations=1000, tolerance=_TOLERANCE, rows=rest).fit(1.0)
    started, alone = (
        Fitter(train, max_iterations=1000, tolerance=_TOLERANCE, start=start).fit(1.0)
        for start in (first, None)
    )
    torch.testing.assert_close(started.coefficients, alone.coefficients)
    held_out = np.flatnonzero(train.labels.numpy() == 2)
    scores = logistic_regression(train, train, SearchConfig(num_values=3), validation=held_out)
    assert scores.metrics["top1"].value > 80


def test_the_multi_label_minimum_is_that_of_each_class_alone() -> None:
    """Several outputs of the sigmoid loss are as many binary regressions; 0 leaves an image out."""
    train = _features()
    signs = torch.stack([(train.labels == 1) * 2 - 1, (train.labels > 3) * 2 - 1], dim=1)
    signs[::5, 1] = 0
    solver = PathSolver(
        MeanLoss(train.features, signs, sigmoid_loss, 2), tolerance=1e-9, max_iterations=1000
    )
    coefficients = solver.minimise(1 / (0.7 * 300)).point.coefficients
    for output in range(2):
        known = signs[:, output] != 0
        estimator = LogisticRegression(C=0.7, tol=1e-10, max_iter=10_000)
        estimator.fit(train.features[known].double(), signs[known, output])
        expected: Tensor = torch.from_numpy(np.append(estimator.coef_[0], estimator.intercept_))
        torch.testing.assert_close(coefficients[:, output], expected, atol=5e-4, rtol=0)
