import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from rsa_eval.evaluators.shared.average_precision import (
    area,
    average_precisions,
    eleven_points,
    rank,
)


def test_by_hand() -> None:
    """Ranked + - + - -, + below: precisions 1, 2/3, 1/2 at recalls 1/3, 2/3, 1."""
    scores = np.array([0.9, 0.8, 0.7, 0.4, 0.3, 0.1])
    positive = np.array([True, False, True, False, False, True])
    ranking = rank(scores, positive)
    assert area(ranking) == pytest.approx((1 + 2 / 3 + 1 / 2) / 3)
    # Recalls 0 to 0.3 are reached at precision 1, 0.4 to 0.6 at 2/3, 0.7 to 1 at 1/2.
    assert eleven_points(ranking) == pytest.approx((4 * 1 + 3 * 2 / 3 + 4 * 1 / 2) / 11)


def test_ties_and_a_difficult_image_by_hand() -> None:
    """Equal scores share a threshold; the difficult image, ranked first, does not count.

    Precisions 2/3, 3/5 and 4/7 at recalls 1/2, 3/4 and 1.
    """
    scores = np.array([0.95, 0.9, 0.9, 0.9, 0.5, 0.5, 0.1, 0.1])
    truth = np.array([0, 1, -1, 1, -1, 1, 1, -1], np.int8)
    for order in (slice(None), slice(None, None, -1)):
        (found,) = average_precisions(scores[order, None], truth[order, None], ["cat"])
        assert found.eleven_points == pytest.approx(100 * (6 * 2 / 3 + 2 * 3 / 5 + 3 * 4 / 7) / 11)
        assert found.area == pytest.approx(100 * (2 * 2 / 3 + 3 / 5 + 4 / 7) / 4)


def test_precision_is_the_best_to_the_right() -> None:
    """Ranked - + +: the precision at both recalls is the last one's, 2/3."""
    ranking = rank(np.array([3.0, 2.0, 1.0]), np.array([False, True, True]))
    assert area(ranking) == pytest.approx(2 / 3)
    assert eleven_points(ranking) == pytest.approx(2 / 3)


def test_a_recall_of_three_tenths_counts_as_such() -> None:
    """Of ten positives three come first: precision 1 holds at recalls 0 to 0.3, all four."""
    positive = np.array([True] * 3 + [False] * 7 + [True] * 7)
    ranking = rank(-np.arange(17.0), positive)
    assert eleven_points(ranking) == pytest.approx((4 + 7 * 10 / 17) / 11)


def test_perfect_worst_and_constant() -> None:
    """Positives first give 1; one score for all is worth the share of positives, in any order."""
    positive = np.array([True, False, False, True])
    assert area(rank(np.array([4.0, 1.0, 2.0, 3.0]), positive)) == 1
    assert area(rank(np.array([1.0, 3.0, 4.0, 2.0]), positive)) == pytest.approx(1 / 2)
    for shuffled in (positive, positive[::-1], np.roll(positive, 1)):
        constant = rank(np.zeros(4), shuffled)
        assert area(constant) == eleven_points(constant) == pytest.approx(1 / 2)


@pytest.mark.parametrize("seed", range(5))
def test_equal_to_scikit_learn_where_precision_only_falls(seed: int) -> None:
    """Without the maximum to the right the definitions are one; with it ours is never lower."""
    generator = np.random.default_rng(seed)
    positive = generator.random(40) < 0.4
    positive[0] = True
    scores = generator.normal(size=40).round(1) + positive  # some are equal
    assert area(rank(scores, positive)) >= average_precision_score(positive, scores) - 1e-12
    falling = np.sort(generator.random(40))[::-1]
    first = np.arange(40) < positive.sum()  # positives first, then one more at the end
    first[-1] = True
    assert area(rank(falling, first)) == pytest.approx(average_precision_score(first, falling))


def test_what_has_no_average_precision() -> None:
    """No positive, or a score that compares with nothing."""
    with pytest.raises(ValueError, match="a positive sample"):
        rank(np.array([1.0, 2.0]), np.array([False, False]))
    with pytest.raises(ValueError, match="scores contain NaN"):
        rank(np.array([1.0, np.nan]), np.array([True, False]))
