"""α-ReQ, LiDAR and linear CKA of made-up features."""

from collections.abc import Callable
from typing import Any

import feature_geometry
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from rsa_eval.evaluators.diagnostics.geometry import rank_me
from rsa_eval.evaluators.diagnostics.lidar import lidar
from rsa_eval.evaluators.diagnostics.similarity import linear_cka, unbiased_linear_cka
from rsa_eval.evaluators.diagnostics.spectrum import alpha_req, eigenspectrum, power_law_exponent
from rsa_pretrain.plumbing.errors import UserError

Measure = Callable[..., float]


def _alpha(features: Tensor, **chunk: int) -> float:
    return alpha_req(features, **chunk)


def _lidar(features: Tensor, **chunk: int) -> float:
    """LiDAR of a third of the rows as images and the rest as two more views of each."""
    return lidar(features.unflatten(0, (3, -1)).unbind(), **chunk)


def _cka(features: Tensor, **chunk: int) -> float:
    return linear_cka(features, features[:, :5].abs(), **chunk)


def _unbiased_cka(features: Tensor, **chunk: int) -> float:
    return unbiased_linear_cka(features, features[:, :5].abs(), **chunk)


MEASURES = pytest.mark.parametrize("measure", [_alpha, _lidar, _cka, _unbiased_cka])


def _features(*shape: int) -> Tensor:
    """Features whose variance decays, with a mean."""
    return torch.randn(*shape, dtype=torch.float64) * torch.arange(1, shape[-1] + 1) ** -0.7 + 2


def _rotation(width: int) -> Tensor:
    return torch.linalg.qr(torch.randn(width, width, dtype=torch.float64)).Q


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0, 2.5])
def test_alpha_of_a_power_law_is_its_exponent(alpha: float) -> None:
    """Eigenvalues i^-α give α, however many there are, and the first three do not matter."""
    for count in (5, 60, 100, 400):
        eigenvalues = torch.arange(1, count + 1, dtype=torch.float64) ** -alpha
        eigenvalues[:3] += 7
        eigenvalues[100:] *= 0.1
        assert power_law_exponent(eigenvalues) == pytest.approx(alpha)


def test_alpha_is_that_of_the_authors_code() -> None:
    """kumarkrishna/fastssl at 96dfa37 gives this number for these features.

    ``stringer_get_powerlaw(get_eigenspectrum(features), np.arange(3, 100))``, as
    scripts/train_model.py calls it; it keeps the weights in float32.
    """
    draws = np.random.default_rng(5)
    features = draws.normal(size=(300, 120)) * np.arange(1, 121) ** -0.6 + 2
    assert alpha_req(torch.from_numpy(features)) == pytest.approx(1.2753081430651108, rel=1e-7)


def test_cka_is_that_of_the_authors_code() -> None:
    """google-research/representation_similarity/Demo.ipynb at 10bf941 gives these numbers.

    It prints the first pair for these draws; ``feature_space_linear_cka`` gives the second, of
    more features than images.
    """
    draws = np.random.RandomState(1337)
    first = draws.randn(100, 10)
    second = draws.randn(100, 10) + first
    pair = torch.from_numpy(first), torch.from_numpy(second)
    assert f"{linear_cka(*pair):.5f} {unbiased_linear_cka(*pair):.5f}" == "0.55761 0.51346"
    draws_of_wide = np.random.default_rng(11)
    wide = draws_of_wide.normal(size=(12, 20))
    narrow = draws_of_wide.normal(size=(12, 7)) + wide[:, :7] + 3
    pair = torch.from_numpy(wide), torch.from_numpy(narrow)
    assert linear_cka(*pair) == pytest.approx(0.5893521847303617)
    assert unbiased_linear_cka(*pair) == pytest.approx(0.28948795537536687)


@pytest.mark.parametrize(("delta", "expected"), [(1e-4, 3.8182035728), (0.5, 3.7906730970)])
def test_lidar_is_that_of_another_implementation(delta: float, expected: float) -> None:
    """There is no code of the authors; stable-pretraining at d15ec96 gives these numbers.

    Its ε is 1e-8 and not 1e-7, hence the tolerance.
    """
    draws = np.random.default_rng(5)
    draws.normal(size=(300, 120))
    images = draws.normal(size=(40, 1, 16)) * np.arange(1, 17) ** -1.0
    views = torch.from_numpy(images + 0.3 * draws.normal(size=(40, 6, 16)))
    assert lidar(views.unbind(1), delta) == pytest.approx(expected, rel=2e-5)


@pytest.mark.parametrize("shape", [(30, 8), (9, 12)])
def test_measures_equal_the_slow_ones(shape: tuple[int, int]) -> None:
    """Sums over chunks equal the papers' definitions, with more or fewer images than features."""
    features = _features(*shape)
    views = features + 0.1 * torch.randn(4, *shape, dtype=torch.float64)
    other = features[:, :6].square() + torch.randn(len(features), 6)
    assert alpha_req(features, 4) == pytest.approx(feature_geometry.alpha_req(features))
    assert lidar(views.unbind(), 0.01, 7) == pytest.approx(feature_geometry.lidar(views, 0.01))
    expected = feature_geometry.linear_cka(features, other)
    assert linear_cka(features, other, 4) == pytest.approx(expected)
    few = features[:9], other[:9]
    expected = feature_geometry.unbiased_linear_cka(*few)
    assert unbiased_linear_cka(*few, 4) == pytest.approx(expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_sums_are_exact_for_features_of_low_precision(dtype: torch.dtype) -> None:
    """The measure of rounded features is that of the same numbers in float64."""
    features = _features(30, 8).to(dtype)
    for measure in (_alpha, _lidar, _cka, _unbiased_cka):
        assert measure(features) == pytest.approx(measure(features.double()))


@MEASURES
def test_chunks_do_not_matter(measure: Measure) -> None:
    """However many rows are read at a time, the number is the same."""
    features = _features(30, 8)
    for chunk_size in (1, 7, 29, 30):
        assert measure(features, chunk_size=chunk_size) == pytest.approx(measure(features))


def test_alpha_ignores_scale_shift_order_and_rotation() -> None:
    """Only the shape of the spectrum counts."""
    features = _features(50, 8)
    changed = -3 * features.flip(0) @ _rotation(8) + 5
    assert alpha_req(changed) == pytest.approx(alpha_req(features))
    assert alpha_req(features.square()) != pytest.approx(alpha_req(features))


def test_lidar_ignores_shift_order_and_rotation() -> None:
    """Views may be swapped and images reordered; a scale c divides δ by c²."""
    views = [_features(20, 8) for _ in range(3)]
    turn, order = _rotation(8), torch.randperm(20)
    changed = [view[order] @ turn + 4 for view in reversed(views)]
    assert lidar(changed) == pytest.approx(lidar(views))
    assert lidar([9 * view for view in views], 81e-4) == pytest.approx(lidar(views, 1e-4))
    mixed = [views[0][order], *views[1:]]
    assert lidar(mixed) != pytest.approx(lidar(views))


def test_lidar_of_features_too_large_for_delta_is_an_error() -> None:
    """Rounding of a covariance of rank 3 in 8 dimensions exceeds δ."""
    views = [1e8 * torch.randn(3, 3) @ torch.randn(3, 8) for _ in range(2)]
    with pytest.raises(UserError, match="too large for LiDAR's delta, 1e-10"):
        lidar(views, 1e-10)


def test_lidar_counts_the_directions_that_distinguish_images() -> None:
    """Three equal directions of images, however much the views spread in the other five."""
    images = torch.linalg.qr(torch.randn(40, 8, dtype=torch.float64) + 1).Q
    images = torch.linalg.qr(images - images.mean(0)).Q * torch.tensor([1, 1, 1, 0, 0, 0, 0, 0])
    noise = torch.tensor([0, 0, 0, 5, 4, 3, 2, 1])
    views = [images + sign * noise for sign in (1, -1)]
    # ε adds at most D ε log(1 / ε) to the entropy.
    assert lidar(views) == pytest.approx(3, rel=2e-5)


def test_cka_ignores_rotation_scale_shift_and_order() -> None:
    """The same features up to these have similarity 1; shuffling one network's images does not."""
    first, second = _features(40, 8), _features(40, 5)
    second[:, :3] += first[:, :3]
    for measure in (linear_cka, unbiased_linear_cka):
        expected = measure(first, second)
        assert measure(second, first) == pytest.approx(expected)
        assert measure(-2 * first @ _rotation(8) + 1, second) == pytest.approx(expected)
        assert measure(first.flip(0), second.flip(0)) == pytest.approx(expected)
        assert measure(first.flip(0), second) != pytest.approx(expected, abs=0.01)
        assert measure(first, 3 * first @ _rotation(8) - 7) == pytest.approx(1)
        assert expected < 0.9


def test_unbiased_cka_of_unrelated_wide_features_is_small() -> None:
    """Ten images of 1,000 features look alike to the biased estimate alone."""
    first, second = torch.randn(2, 10, 1000, dtype=torch.float64).unbind()
    assert linear_cka(first, second) > 0.8
    assert abs(unbiased_linear_cka(first, second)) < 0.1


def test_directions_of_rounding_are_no_eigenvalues() -> None:
    """Features of six directions have six eigenvalues, in every precision."""
    features = (torch.randn(60, 6, dtype=torch.float64) @ _rotation(40)[:6]) + 1
    for dtype in (torch.float64, torch.float32, torch.float16):
        assert len(eigenspectrum(features.to(dtype))) == 6
    assert eigenspectrum(features).sum() == pytest.approx(1)
    assert alpha_req(features.float()) == pytest.approx(alpha_req(features), rel=1e-4)


@MEASURES
@pytest.mark.parametrize("value", [0.0, 0.1, -3e4])
def test_features_that_are_all_the_same_are_refused(measure: Measure, value: float) -> None:
    """Rounding of the mean is no variance."""
    for dtype in (torch.float64, torch.float32):
        with pytest.raises(UserError, match="all images have the same"):
            measure(torch.full((12, 8), value, dtype=dtype))


@MEASURES
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_features_that_are_not_finite_are_refused(measure: Measure, value: float) -> None:
    """One number is enough, in whichever chunk."""
    features = _features(12, 8)
    features[7, 2] = value
    with pytest.raises(UserError, match="needs finite features"):
        measure(features, chunk_size=4)


def test_too_few_images_are_refused() -> None:
    """A spectrum needs five eigenvalues, LiDAR and CKA two images, an unbiased CKA four."""
    features = _features(12, 8)
    with pytest.raises(
        UserError, match=r"features \(N, D\) of 2 images or more, found .* \(1, 8\)"
    ):
        alpha_req(features[:1])
    with pytest.raises(UserError, match="at least two; found 4 eigenvalues"):
        alpha_req(features[:5])
    assert alpha_req(features[:6]) > 0
    with pytest.raises(UserError, match="2 views or more of the same images, found 1"):
        lidar([features])
    with pytest.raises(UserError, match="2 images or more"):
        lidar([features[:1], features[1:2]])
    with pytest.raises(UserError, match=r"found 2: \(12, 8\), \(11, 8\)"):
        lidar([features, features[1:]])
    with pytest.raises(UserError, match="a positive delta, found 0"):
        lidar([features, features], 0)
    with pytest.raises(UserError, match="2 images or more"):
        linear_cka(features[:1], features[:1])
    with pytest.raises(UserError, match="4 images or more, found 3"):
        unbiased_linear_cka(features[:3], features[:3])
    with pytest.raises(UserError, match="of the same images, found 12 and 11"):
        linear_cka(features, features[1:])


class Largest(TorchDispatchMode):
    """Notes the most numbers that a tensor computed in its block holds."""

    numbers = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func not in (torch.ops.aten.split.Tensor, torch.ops.aten.slice.Tensor):  # views
            for leaf in tree_leaves(result):
                if isinstance(leaf, Tensor):
                    self.numbers = max(self.numbers, leaf.numel())
        return result


def test_memory_is_that_of_a_chunk() -> None:
    """Beside the features there are matrices of D columns, and a chunk's rows."""
    features = torch.randn(900, 10)
    views = features.unflatten(0, (3, 300)).unbind()
    with Largest() as largest:
        alpha_req(features, 30)
        lidar(views, chunk_size=30)
        linear_cka(features, features, 30)
        unbiased_linear_cka(features, features, 30)
    assert largest.numbers <= (30 + 10) * 10
    with Largest() as largest:
        linear_cka(features, features, 900)
    assert largest.numbers == features.numel()


def test_weak_directions_above_rounding_are_eigenvalues() -> None:
    """In half precision a decay whose tail is above the rounding has the exponent of float32."""
    generator = torch.Generator().manual_seed(0)
    scale = torch.full((256,), 0.01)
    scale[:20] = torch.arange(1, 21) ** -0.5
    features = 2 + torch.randn(600, 256, generator=generator) * scale
    half = features.half()
    assert len(eigenspectrum(half)) == len(eigenspectrum(half.float())) == 256
    assert alpha_req(half) == pytest.approx(alpha_req(features), rel=0.01)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_rank_needs_finite_features(value: float) -> None:
    """Also where no evaluation has checked them."""
    features = torch.ones(6, 3)
    features[2, 1] = value
    with pytest.raises(UserError, match="a spectrum needs finite features"):
        rank_me(features)
