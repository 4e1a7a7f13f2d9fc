import numpy as np
import pytest
from resampling import index_class_means, index_means

from rsa_eval.statistics import bootstrap
from rsa_eval.statistics.bootstrap import (
    bootstrap_p,
    class_mean_replicates,
    mean_replicates,
    resampled_counts,
)
from rsa_eval.statistics.intervals import FloatArray

NUM_RESAMPLES = 20_000


def _right_or_wrong(num_images: int, seed: int = 0) -> FloatArray:
    """Return two correlated models' hits in percent, (N, 2)."""
    rng = np.random.default_rng(seed)
    difficulty = rng.normal(size=(num_images, 1))
    return 100.0 * (difficulty + rng.normal(size=(num_images, 2)) > [-0.8, -0.5])


def _assert_same_distribution(found: FloatArray, expected: FloatArray) -> None:
    """Compare mean, covariance and quantiles within five Monte Carlo standard errors."""
    deviation = expected.std(axis=0)
    allowed = 5 * deviation * np.sqrt(1 / len(found) + 1 / len(expected))
    assert (abs(found.mean(axis=0) - expected.mean(axis=0)) <= allowed).all()
    np.testing.assert_allclose(np.corrcoef(found.T), np.corrcoef(expected.T), atol=0.05)
    np.testing.assert_allclose(found.std(axis=0), deviation, rtol=0.05)
    for share in (0.05, 0.5, 0.95):
        quantiles = [np.quantile(sample, share, axis=0) for sample in (found, expected)]
        assert (abs(quantiles[0] - quantiles[1]) <= 3 * allowed + 0.2 * deviation).all()


@pytest.mark.parametrize("num_images", [13, 300])
@pytest.mark.parametrize("by_index", [False, True])
def test_means_vary_as_under_drawn_indices(
    num_images: int, by_index: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In mean, deviation, correlation of the models, and tails, by either way of drawing."""
    if by_index:
        monkeypatch.setattr(bootstrap, "_PATTERN_COST", 10**9)
    values = _right_or_wrong(num_images)
    expected = index_means(values, 4000, np.random.default_rng(1))
    found = mean_replicates(values, NUM_RESAMPLES)
    _assert_same_distribution(found, expected)


def test_values_that_are_all_different_are_drawn_one_by_one() -> None:
    """Patterns are as many as images then."""
    values = np.random.default_rng(2).normal(50, 10, size=(400, 3))
    expected = index_means(values, 4000, np.random.default_rng(1))
    _assert_same_distribution(mean_replicates(values, NUM_RESAMPLES), expected)


def test_pseudo_images_join_the_real_ones() -> None:
    """Half of each of four pseudo-images: as from twice the images and one of each, drawn N + 2."""
    values = _right_or_wrong(20)
    found = mean_replicates(values, NUM_RESAMPLES, pseudo=0.5)
    doubled = np.concatenate([values, values, [[0, 0], [0, 100], [100, 0], [100, 100]]])
    np.testing.assert_allclose(found.mean(axis=0), doubled.mean(axis=0), atol=0.4)
    np.testing.assert_allclose(found.var(axis=0), doubled.var(axis=0) / 22, rtol=0.05)
    covariance = np.cov(doubled.T, ddof=0)[0, 1] / 22
    assert np.cov(found.T)[0, 1] == pytest.approx(covariance, rel=0.1)


def test_one_column_has_two_pseudo_images() -> None:
    """Agresti and Coull: two successes and two failures more."""
    values = np.array([[100.0]] * 9 + [[0.0]])
    found = mean_replicates(values, NUM_RESAMPLES, pseudo=2) / 100
    share = 11 / 14
    assert found.mean() == pytest.approx(share, abs=0.005)
    assert found.var() == pytest.approx(share * (1 - share) / 14, rel=0.05)


@pytest.mark.parametrize("right", [0.0, 100.0])
def test_pseudo_images_keep_an_interval_where_all_agree(right: float) -> None:
    """Without them it is one point; with them it is on the side of the other value."""
    values = np.full((30, 2), right)
    assert (mean_replicates(values, 100) == right).all()
    difference = np.subtract(*mean_replicates(values, 2000, pseudo=0.5).T)
    assert np.quantile(difference, 0.025) < 0 < np.quantile(difference, 0.975)
    single = mean_replicates(values[:, :1], 2000, pseudo=2.0)
    assert single.std() > 3


def test_pseudo_images_weigh_less_among_averages_over_trials() -> None:
    """Values of 25 and 75 have a quarter of the variance of 0 and 100."""
    values = np.array([[25.0], [75.0]] * 20)
    found = mean_replicates(values, NUM_RESAMPLES, pseudo=2)
    variance = (40 * 25**2 + 2 * 0.5 * 50**2) / 41
    assert found.var() == pytest.approx(variance / 41, rel=0.05)


def test_a_single_image_and_identical_models() -> None:
    """One image is drawn each time; the same model twice never differs."""
    assert (mean_replicates(np.array([[100.0, 0.0]]), 5) == [100, 0]).all()
    twice = np.repeat(_right_or_wrong(40)[:, :1], 2, axis=1)
    assert (np.subtract(*mean_replicates(twice, 500).T) == 0).all()


def test_chunks_hold_all_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last one is partial, and the result the same as of one chunk."""
    values = _right_or_wrong(500)
    whole = mean_replicates(values, 1000)
    monkeypatch.setattr(bootstrap, "_COUNTS_AT_ONCE", 4 * 300)
    np.testing.assert_allclose(mean_replicates(values, 1000), whole)


def test_means_over_classes_vary_as_under_drawn_indices() -> None:
    """Classes of 2 to 30 images, of which the small ones are absent at times."""
    rng = np.random.default_rng(3)
    labels = rng.permutation(np.repeat([0, 3, 4, 9], [2, 5, 15, 30]))
    values = 100.0 * (rng.random((len(labels), 2)) < 0.4 + 0.05 * labels[:, None])
    expected = index_class_means(values, labels, 4000, np.random.default_rng(1))
    found = class_mean_replicates(values, labels, NUM_RESAMPLES)
    _assert_same_distribution(found, expected)


def test_one_class_has_the_plain_mean() -> None:
    """The same patterns in the same resamples."""
    values = _right_or_wrong(200)
    found = class_mean_replicates(values, np.full(200, 7), 300)
    np.testing.assert_allclose(found, mean_replicates(values, 300))


def test_counts_are_the_same_in_chunks_of_any_size() -> None:
    """Each resample has N images; more resamples continue fewer; another seed differs."""
    whole = np.concatenate(list(resampled_counts(37, 50, 5, chunk=50)))
    assert whole.shape == (50, 37)
    assert (whole.sum(axis=1) == 37).all()
    for chunk in (1, 7, None):
        parts = list(resampled_counts(37, 20, 5, chunk=chunk))
        np.testing.assert_array_equal(np.concatenate(parts), whole[:20])
    assert (next(resampled_counts(37, 50, 6)) != whole).any()


def test_counts_are_multinomial() -> None:
    """Mean 1, variance 1 - 1/N, covariance -1/N."""
    counts = np.concatenate(list(resampled_counts(5, 40_000)))
    np.testing.assert_allclose(counts.mean(axis=0), 1, atol=0.03)
    np.testing.assert_allclose(np.cov(counts.T), np.eye(5) - 0.2, atol=0.03)


def test_the_bootstraps_p_counts_the_other_side() -> None:
    """Zero is on both sides; one is added; 1 is the most; NaN is left out."""
    replicates = np.array([-1.0, 0.0, *range(1, 18), np.nan])
    assert bootstrap_p(replicates) == pytest.approx(2 * 3 / 20)
    assert bootstrap_p(-replicates) == bootstrap_p(replicates)
    assert bootstrap_p(np.zeros(99)) == 1
    assert bootstrap_p(np.ones(99)) == 0.02


def test_arguments_are_checked() -> None:
    """Shapes, NaN, and pseudo-images that are undefined."""
    values = np.zeros((4, 3))
    with pytest.raises(ValueError, match="at least one image"):
        mean_replicates(np.zeros((0, 2)))
    with pytest.raises(ValueError, match="values contain NaN"):
        mean_replicates(np.array([[np.nan]]))
    with pytest.raises(ValueError, match=r"found pseudo=0.5 with 3 columns"):
        mean_replicates(values, pseudo=0.5)
    with pytest.raises(ValueError, match=r"found pseudo=-1 with 3 columns"):
        mean_replicates(values, pseudo=-1)
    with pytest.raises(ValueError, match=r"found labels \(3,\) for values \(4, 3\)"):
        class_mean_replicates(values, np.zeros(3, np.int64))
    with pytest.raises(ValueError, match="found no images to resample"):
        next(resampled_counts(0))
    with pytest.raises(ValueError, match="undefined in every resample"):
        bootstrap_p(np.array([np.nan]))
