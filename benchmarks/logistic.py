"""Compare the path of logistic regressions with scikit-learn's, in time and in result."""

import math
from collections.abc import Callable
from typing import Annotated

import torch
from pydantic import Field
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from benchmarks.measure import (
    Benchmark,
    BenchmarkSettings,
    Figure,
    Finding,
    Measurement,
    alternate,
    extra_memory,
    ratio,
)
from rsa_eval.evaluators.logistic.fit import Fitter, LinearClassifier
from rsa_eval.evaluators.logistic.objective import MeanLoss, softmax_loss
from rsa_eval.evaluators.logistic.ridge import RidgePath
from rsa_eval.evaluators.logistic.settings import SearchConfig
from rsa_eval.evaluators.shared.convergence import counting_cut_short
from rsa_eval.features.labelled import LabelledFeatures

_OURS, _SKLEARN, _RIDGE = "our path", "scikit-learn's L-BFGS", "ridge, leaving one out"
_SEPARATION = 0.5
_TIGHT = 1e-9
_NEVER_REACHED = 1e-15
_COMPARED = (1e-3, 1.0)

_Path = dict[float, LinearClassifier]


class LogisticBenchmarkSettings(BenchmarkSettings):
    """Size of the problem."""

    repeats: Annotated[int, Field(ge=1)] = 1
    """Timed runs of each candidate, after a warm-up run."""
    num_images: Annotated[int, Field(ge=1)] = 10_000
    """Images to fit, and as many to classify."""
    width: Annotated[int, Field(ge=1)] = 2048
    """Width of the features."""
    num_classes: Annotated[int, Field(ge=3)] = 100
    """Classes."""
    num_values: Annotated[int, Field(ge=1)] = 45
    """Values of C from 1e-6 to 1e5, each fit starting from the last."""
    num_large: Annotated[int, Field(ge=1)] = 200_000
    """Images of 1,000 classes, for the memory of an evaluation."""
    num_fitted: Annotated[int, Field(ge=1)] = 6000
    """Images of 1,000 classes, more than are read at a time, for the memory of a fit."""
    num_steps: Annotated[int, Field(ge=1)] = 60
    """Steps of that fit, more than L-BFGS stores."""


def measure(settings: LogisticBenchmarkSettings) -> Measurement:
    """Time both on the same features, and compare objectives and predictions along the path."""
    device = torch.device(settings.device)
    train, test = (_draw(settings, seed).to(device) for seed in (settings.seed, settings.seed + 1))
    labels = torch.arange(settings.num_images) % settings.num_classes
    images = LabelledFeatures(train, labels)
    strengths = SearchConfig(num_values=settings.num_values).strengths
    found: dict[str, _Path] = {}
    candidates: dict[str, Callable[[], object]] = {
        _OURS: lambda: found.update({_OURS: _our_path(images, strengths)}),
        _SKLEARN: lambda: found.update({_SKLEARN: _their_path(images, strengths)}),
        _RIDGE: lambda: RidgePath(images).leave_one_out(strengths),
    }
    seconds = alternate(candidates, settings.repeats, settings.device)
    return Measurement(
        [_speed(settings, seconds), *_equality(images, test, found), *memory_findings(settings)],
        seconds,
        [
            Figure(
                what="largest excess of scikit-learn's objective over ours, relative",
                value=max(-_excess(images, found, c) for c in strengths),
                unit="relative",
            ),
            Figure(what="time of ridge over ours", value=ratio(seconds, _RIDGE, _OURS), unit="×"),
        ],
    )


def _speed(settings: LogisticBenchmarkSettings, seconds: dict[str, list[float]]) -> Finding:
    size = f"{settings.num_values} values of C, {settings.num_images:,} x {settings.width}"
    return Finding(
        what=f"{size}, {settings.num_classes} classes: time of scikit-learn over ours",
        value=ratio(seconds, _SKLEARN, _OURS),
        unit="×",
        bound="at least",
        limit=5,
    )


def _equality(images: LabelledFeatures, test: Tensor, found: dict[str, _Path]) -> list[Finding]:
    """Compare objectives at every C, and predictions with scikit-learn's minimum at some."""
    compared = sorted({_nearest(c, found[_OURS]) for c in _COMPARED})
    theirs = _their_path(images, compared, _TIGHT)
    listed = ", ".join(f"{c:.2g}" for c in compared)
    return [
        Finding(
            what="largest excess of our objective over scikit-learn's, relative",
            value=max(_excess(images, found, c) for c in found[_OURS]),
            unit="relative",
            bound="at most",
            limit=1e-6,
        ),
        Finding(
            what=f"predictions equal to scikit-learn's at its tolerance {_TIGHT:g}, least of "
            f"C = {listed}",
            value=min(_agreement(test, found[_OURS][c], theirs[c]) for c in compared),
            unit="%",
            bound="at least",
            limit=99.9,
        ),
    ]


def _nearest(c: float, found: _Path) -> float:
    return min(found, key=lambda own: abs(math.log(own / c)))


def memory_findings(settings: LogisticBenchmarkSettings) -> list[Finding]:
    """Measure what an evaluation of many images, and a whole fit, take beside the features."""
    kind = f"x {settings.width} half-precision features, 1,000 classes"
    evaluation = f"memory of one evaluation of {settings.num_large:,} {kind}"
    fit = f"memory of a fit of {settings.num_steps} steps, {settings.num_fitted:,} {kind}"
    return [
        Finding(what=what, value=size / 2**30, unit="GiB", bound="at most", limit=limit)
        for what, size, limit in (
            (evaluation, _evaluation_memory(settings), 1),
            (fit, _fit_memory(settings), 1.5),
        )
    ]


def _our_path(images: LabelledFeatures, strengths: list[float]) -> _Path:
    fitter = Fitter(images, max_iterations=1000, tolerance=SearchConfig().tolerance)
    return {c: fitter.fit(c).classifier for c in strengths}


def _their_path(images: LabelledFeatures, strengths: list[float], tolerance: float = 1e-6) -> _Path:
    features, labels = images.features.cpu().double().numpy(), images.labels.numpy()
    estimator = LogisticRegression(max_iter=1000, tol=tolerance, warm_start=True)
    found = {}
    for c in strengths:
        with counting_cut_short():
            estimator.set_params(C=c).fit(features, labels)
        weights, intercepts = (
            torch.from_numpy(each.copy()) for each in (estimator.coef_.T, estimator.intercept_)
        )
        found[c] = LinearClassifier(weights, intercepts, torch.arange(len(intercepts)))
    return found


def _excess(images: LabelledFeatures, found: dict[str, _Path], c: float) -> float:
    """Return our objective minus scikit-learn's, relative to scikit-learn's."""
    ours, theirs = (_objective(images, found[name][c], c) for name in (_OURS, _SKLEARN))
    return ours / theirs - 1


def _objective(images: LabelledFeatures, classifier: LinearClassifier, c: float) -> float:
    labels = images.labels.to(images.features.device)
    loss = MeanLoss(images.features, labels, softmax_loss, len(classifier.classes))
    loss.product_dtype = torch.float64
    coefficients = torch.cat([classifier.weights, classifier.intercepts[None]])
    return loss.at(coefficients.to(loss.device)).value(1 / (c * len(labels)))


def _agreement(test: Tensor, first: LinearClassifier, second: LinearClassifier) -> float:
    """Return the percentage of test images that both classify alike."""
    num_classes = len(first.classes)
    answers = [each.scores(test, num_classes).argmax(dim=1).cpu() for each in (first, second)]
    return 100 * float((answers[0] == answers[1]).double().mean())


def _draw(settings: LogisticBenchmarkSettings, seed: int) -> Tensor:
    """Draw features like a network's: not negative, anisotropic, with classes that overlap."""
    generator = torch.Generator().manual_seed(settings.seed)
    rank = min(256, settings.width)
    scale = torch.arange(1, rank + 1) ** -0.5
    means = torch.randn(settings.num_classes, rank, generator=generator)
    mixing = torch.randn(rank, settings.width, generator=generator) / scale.norm()
    own = torch.Generator().manual_seed(seed)
    labels = torch.arange(settings.num_images) % settings.num_classes
    noise = torch.randn(settings.num_images, rank, generator=own)
    signal = ((_SEPARATION * means[labels] + noise) * scale) @ mixing
    return (signal - 0.5 + 0.3 * torch.randn(signal.shape, generator=own)).relu()


def _evaluation_memory(settings: LogisticBenchmarkSettings) -> int:
    """Return the memory that an evaluation of loss and gradient takes beside the features."""
    features = torch.zeros(settings.num_large, settings.width, dtype=torch.float16)
    labels = torch.arange(settings.num_large) % 1000
    device = torch.device(settings.device)
    loss = MeanLoss(features, labels, softmax_loss, 1000, device=device)
    start = torch.zeros(loss.shape, dtype=torch.float64, device=device)
    return extra_memory(lambda: loss.at(start), settings.device)


def _fit_memory(settings: LogisticBenchmarkSettings) -> int:
    """Return the memory that a fit takes beside the features, none of whose steps is the last."""
    generator = torch.Generator().manual_seed(settings.seed)
    labels = torch.arange(settings.num_fitted) % 1000
    centres = 0.1 * torch.randn(1000, settings.width, generator=generator)
    noise = torch.randn(settings.num_fitted, settings.width, generator=generator)
    device = torch.device(settings.device)
    images = LabelledFeatures((centres[labels] + noise).half(), labels)

    def fit() -> None:
        fitter = Fitter(
            images, max_iterations=settings.num_steps, tolerance=_NEVER_REACHED, device=device
        )
        fitter.fit(0.01)

    return extra_memory(fit, settings.device)


BENCHMARK = Benchmark(
    settings=LogisticBenchmarkSettings,
    measure=measure,
    summary="Logistic regression for 45 values of C compared with scikit-learn's.",
)
