import numpy as np
import numpy.typing as npt
import pytest
from resampling import repeated, voc_average_precision

from rsa_eval.evaluators.shared.average_precision import area, eleven_points, rank
from rsa_eval.statistics.average_precision import ap_replicates, mean_ap_replicates
from rsa_eval.statistics.bootstrap import resampled_counts
from rsa_eval.statistics.intervals import FloatArray

POINTS = pytest.mark.parametrize("at_eleven_points", [False, True])


def _images(
    num_images: int, has_ties: bool, seed: int = 0
) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
    rng = np.random.default_rng(seed)
    positive = rng.random(num_images) < 0.3
    scores = rng.normal(size=num_images) + positive
    return (np.round(2 * scores) / 2 if has_ties else scores), positive


@POINTS
@pytest.mark.parametrize("has_ties", [False, True])
def test_counting_images_equals_repeating_them(has_ties: bool, at_eleven_points: bool) -> None:
    """Against a literal rewrite, up to the order of a sum."""
    scores, positive = _images(60, has_ties)
    counts = next(resampled_counts(60, 40))
    found = ap_replicates(scores, positive, counts, eleven_points=at_eleven_points)
    expected = [
        voc_average_precision(*repeated(row, scores, positive), at_eleven_points) for row in counts
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@POINTS
@pytest.mark.parametrize("has_ties", [False, True])
def test_images_that_count_once_give_the_evaluators_value(
    has_ties: bool, at_eleven_points: bool
) -> None:
    """Over 20 sets of images."""
    measure = eleven_points if at_eleven_points else area
    for seed in range(20):
        scores, positive = _images(50, has_ties, seed)
        once = np.ones((1, 50), np.int64)
        (found,) = ap_replicates(scores, positive, once, eleven_points=at_eleven_points)
        assert found == pytest.approx(100 * measure(rank(scores, positive)), rel=1e-12)


@POINTS
def test_all_right_and_all_tied(at_eleven_points: bool) -> None:
    """A perfect ranking has 100 in every resample, one tie the share of positives."""
    positive = np.arange(30) < 12
    counts = next(resampled_counts(30, 50))
    perfect = ap_replicates(-np.arange(30.0), positive, counts, eleven_points=at_eleven_points)
    np.testing.assert_allclose(perfect, 100)
    tied = ap_replicates(np.zeros(30), positive, counts, eleven_points=at_eleven_points)
    np.testing.assert_allclose(tied, 100 * counts[:, :12].sum(axis=1) / 30)


def test_a_resample_without_a_positive_is_undefined() -> None:
    """NaN; the others are not."""
    counts = np.array([[0, 2, 1], [1, 1, 1]])
    found = ap_replicates(np.arange(3.0), np.arange(3) == 0, counts, eleven_points=False)
    assert np.isnan(found[0])
    assert found[1] == pytest.approx(100 / 3)
    none = ap_replicates(np.arange(3.0), np.zeros(3, np.bool_), counts, eleven_points=False)
    assert np.isnan(none).all()


@POINTS
def test_the_mean_is_over_classes_with_a_positive_in_the_resample(at_eleven_points: bool) -> None:
    """Ignored images leave out their class alone; all classes share the resamples."""
    rng = np.random.default_rng(1)
    truth = rng.choice([1, -1, -1, -1, 0], size=(25, 4)).astype(np.int8)
    truth[1:, 2] = -1
    truth[0, 2] = 1  # absent in a third of the resamples
    truth[:, 3] = -1  # and this class in all
    scores = rng.normal(size=(25, 4)) + 0.5 * truth
    scores[truth == 0] = np.nan  # never read
    found = mean_ap_replicates(scores, truth, 60, 3, eleven_points=at_eleven_points)
    expected = []
    for row in np.concatenate(list(resampled_counts(25, 60, 3))):
        values = []
        for column in range(4):
            kept = truth[:, column] != 0
            drawn = repeated(row[kept], scores[kept, column], truth[kept, column] > 0)
            if drawn[1].any():
                values.append(voc_average_precision(*drawn, at_eleven_points))
        expected.append(np.mean(values))
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_models_share_their_resamples() -> None:
    """The same model in other units never differs."""
    scores, positive = _images(80, has_ties=False)
    truth = np.where(positive, 1, -1).astype(np.int8)[:, None]
    first, second = (mean_ap_replicates(s[:, None], truth, 50) for s in (scores, 3 * scores + 1))
    np.testing.assert_array_equal(first, second)


def test_no_positive_at_all_is_undefined() -> None:
    """As is every resample."""
    assert np.isnan(mean_ap_replicates(np.zeros((4, 2)), -np.ones((4, 2), np.int8), 3)).all()


def test_arguments_are_checked() -> None:
    """Shapes, and scores that have no rank."""
    scores, truth = np.array([[np.nan]]), np.ones((1, 1), np.int8)
    with pytest.raises(ValueError, match="scores contain NaN"):
        mean_ap_replicates(scores, truth, 1)
    with pytest.raises(ValueError, match="scores contain NaN"):
        ap_replicates(scores[0], truth[0] > 0, np.ones((1, 1), np.int64), eleven_points=False)
    with pytest.raises(ValueError, match=r"found scores \(1, 1\) and truth \(1,\)"):
        mean_ap_replicates(scores, truth[0], 1)
    with pytest.raises(ValueError, match=r"counts \(1, 2\); expected"):
        ap_replicates(scores[0], truth[0] > 0, np.ones((1, 2), np.int64), eleven_points=False)
