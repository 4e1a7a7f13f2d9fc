import math

import numpy as np
import pytest
from scipy import stats
from sklearn.isotonic import IsotonicRegression

from rsa_eval.statistics.intervals import FloatArray, percentile_interval
from rsa_eval.statistics.label_savings import (
    LabelsNeeded,
    curve_replicates,
    labels_needed,
    monotone,
    needed_with_interval,
)

SIZES = np.array([1.0, 2.0, 5.0, 10.0])


def slow_labels_needed(sizes: list[float], curve: list[float], target: float) -> float:
    """Pool adjacent violators, then walk along the curve, one number at a time."""
    blocks = [[value] for value in curve]
    while True:
        means = [math.fsum(block) / len(block) for block in blocks]
        wrong = [place for place in range(len(means) - 1) if means[place] > means[place + 1]]
        if not wrong:
            break
        blocks[wrong[0] : wrong[0] + 2] = [blocks[wrong[0]] + blocks[wrong[0] + 1]]
    fitted = [mean for mean, block in zip(means, blocks, strict=True) for _ in block]
    if target < fitted[0] - 1e-9:
        return 0.0
    for place, value in enumerate(fitted):
        if value >= target - 1e-9:
            if place == 0:
                return sizes[0]
            share = min(1.0, (target - fitted[place - 1]) / (value - fitted[place - 1]))
            start, end = math.log(sizes[place - 1]), math.log(sizes[place])
            return math.exp(start + share * (end - start))
    return math.inf


def needed(curve: list[float], target: float) -> float:
    """Invert one curve over ``SIZES``."""
    return float(labels_needed(SIZES, np.array([curve]), np.array([target]))[0])


def right(
    random: np.random.Generator, share: float, num_draws: int = 5, num: int = 80
) -> FloatArray:
    """Draw outcomes of test images that are right with a probability, in percent."""
    return np.asarray(100.0 * (random.random((num_draws, num)) < share))


def compare(
    ours: dict[float, FloatArray], theirs: dict[float, FloatArray], size: float
) -> LabelsNeeded:
    """Return the labels of the second curve for the first one's accuracy at a size."""
    sizes, num_images = np.array(sorted(theirs)), ours[size].shape[1]
    own, others = curve_replicates([ours, theirs], 400)
    return needed_with_interval(
        sizes,
        np.array([theirs[key].mean() for key in sorted(theirs)]),
        float(ours[size].mean()),
        others,
        own[:, sorted(ours).index(size)],
        num_images,
    )


def test_monotone_equals_isotonic_regression() -> None:
    """On random curves, as scikit-learn fits them; a monotone one is unchanged."""
    curves = np.random.default_rng(0).integers(0, 20, (60, 7)).astype(float)
    fits = [IsotonicRegression().fit_transform(range(7), curve) for curve in curves]
    np.testing.assert_allclose(monotone(curves), np.array(fits), rtol=1e-12)
    risen = np.sort(curves, axis=1)
    np.testing.assert_allclose(monotone(risen), risen, rtol=1e-14)
    assert monotone(np.array([3.0, 1.0])).tolist() == [2.0, 2.0]


def test_labels_needed_equals_a_slow_rewrite() -> None:
    """On random curves with ties and dips, for targets on and between their values."""
    random = np.random.default_rng(1)
    curves = random.integers(0, 6, (500, 4)) * 10.0
    targets = random.integers(-1, 14, 500) * 5.0
    expected = [
        slow_labels_needed(SIZES.tolist(), curve.tolist(), float(target))
        for curve, target in zip(curves, targets, strict=True)
    ]
    assert {0.0, math.inf} <= set(expected)
    np.testing.assert_allclose(labels_needed(SIZES, curves, targets), expected, rtol=1e-9)


@pytest.mark.parametrize(
    ("curve", "target", "expected"),
    [
        ([10, 20, 30, 40], 20, 2),
        ([10, 20, 30, 40], 15, math.sqrt(2)),  # halfway in the logarithm
        ([10, 20, 30, 40], 35, math.sqrt(50)),
        ([10, 20, 30, 40], 10, 1),
        ([10, 20, 30, 40], 40, 10),
        ([10, 20, 30, 40], 40.1, math.inf),
        ([10, 20, 30, 40], 9.9, 0),
        ([10, 30, 20, 40], 25, 2),  # the dip is levelled: 25 from 2 to 5
        ([10, 20, 20, 40], 20, 2),  # a tie: the fewest labels
        ([10, 20, 20, 40], 30, math.sqrt(50)),
        ([20, 20, 20, 20], 20, 1),  # flat
        ([20, 20, 20, 20], 21, math.inf),
        ([40, 30, 20, 10], 25, 1),  # falling: flat at 25
    ],
)
def test_labels_needed_by_hand(curve: list[float], target: float, expected: float) -> None:
    """Worked by hand over 1, 2, 5 and 10 labels per class."""
    assert needed(curve, target) == pytest.approx(expected)


def test_labels_needed_of_one_size() -> None:
    """Fewer, exactly as many, or more."""
    curves, targets = np.full((3, 1), 50.0), np.array([40.0, 50.0, 60.0])
    assert labels_needed(np.array([7.0]), curves, targets).tolist() == [0.0, 7.0, math.inf]


def test_impossible_inputs_of_labels_needed() -> None:
    """Shapes that disagree, and sizes that do not increase or are not positive."""
    with pytest.raises(ValueError, match="found curves"):
        labels_needed(SIZES, np.zeros((2, 3)), np.zeros(2))
    for sizes in ([1.0, 1.0], [0.0, 1.0], [2.0, 1.0]):
        with pytest.raises(ValueError, match="expected increasing"):
            labels_needed(np.array(sizes), np.zeros((1, 2)), np.zeros(1))


def test_replicates_of_one_draw_are_those_of_the_images() -> None:
    """Bounds of a bootstrap of one proportion with four pseudo-images; none without width."""
    outcomes = right(np.random.default_rng(2), 0.7, num_draws=1, num=200)
    (replicates,) = curve_replicates([{1.0: outcomes, 3.0: np.full((1, 200), 100.0)}])
    mean = (outcomes.sum() + 200) / 204
    assert replicates.mean(axis=0)[0] == pytest.approx(mean, abs=0.1)
    error = math.sqrt(mean * (100 - mean) / 204)
    assert replicates.std(axis=0)[0] == pytest.approx(error, rel=0.03)
    assert replicates[:, 1].min() < 99.5


def test_replicates_of_equal_images_spread_by_the_t_distribution() -> None:
    """Where images agree within a draw, the interval is Student's over the draws."""
    by_draw = np.array([60.0, 62.0, 65.0, 61.0, 57.0])
    outcomes = np.repeat(by_draw[:, None], 10**5, axis=1)
    (replicates,) = curve_replicates([{1.0: outcomes}])
    found = percentile_interval(replicates[:, 0], 10**5)
    reach = stats.t.ppf(0.975, 4) * stats.sem(by_draw)
    assert found.low == pytest.approx(by_draw.mean() - reach, abs=0.15)
    assert found.high == pytest.approx(by_draw.mean() + reach, abs=0.15)


def test_draws_that_differ_by_chance_add_little() -> None:
    """Independent outcomes: the width is that of all answers together, in half of the trials."""
    random = np.random.default_rng(9)
    ratios = []
    for _ in range(60):
        outcomes = right(random, 0.5, num_draws=5, num=200)
        (replicates,) = curve_replicates([{1.0: outcomes}], 300)
        ratios.append(replicates.std() / (50 / math.sqrt(5 * 204)))
    assert 0.95 < np.median(ratios) < 1.15


def chance(difficulty: FloatArray, effect: FloatArray) -> FloatArray:
    """The chance of images and draws to be right, by a logistic model."""
    return np.asarray(1 / (1 + np.exp(difficulty + effect)))


@pytest.mark.parametrize(("num_images", "spread"), [(50, 0.0), (50, 1.0), (1000, 0.3)])
def test_intervals_cover_the_expected_accuracy(num_images: int, spread: float) -> None:
    """Over images and draws together; 50 images make it cautious by up to three points."""
    random = np.random.default_rng(10)
    truth = 100 * chance(random.normal(0, 1.5, 10**6), random.normal(0, spread, 10**6)).mean()
    covered = 0
    for trial in range(2000):
        share = chance(random.normal(0, 1.5, num_images), random.normal(0, spread, (5, 1)))
        outcomes = 100.0 * (random.random(share.shape) < share)
        (replicates,) = curve_replicates([{1.0: outcomes}], 400, trial)
        covered += not percentile_interval(replicates[:, 0], num_images).excludes(float(truth))
    assert 0.935 <= covered / 2000 <= 0.975


@pytest.mark.parametrize(("num_images", "num_trials"), [(50, 2000), (1000, 1000)])
def test_intervals_cover_the_labels_needed(num_images: int, num_trials: int) -> None:
    """Of a baseline of five sizes; cautious by up to three points."""
    random = np.random.default_rng(1)
    sizes, levels = np.array([1.0, 2, 5, 10, 20]), np.array([-1.2, -0.8, -0.2, 0.3, 0.7])
    difficulty, effect = random.normal(0, 1.5, 10**6), random.normal(0, 0.3, 10**6)
    expected = np.array([100 * chance(difficulty, effect - level).mean() for level in levels])
    target = np.array([100 * chance(difficulty, effect).mean()])
    (truth,) = labels_needed(sizes, expected[None], target)
    assert 5 < truth < 10
    covered = 0
    for trial in range(num_trials):
        difficulty = random.normal(0, 1.5, num_images)
        shares = [
            chance(difficulty, random.normal(0, 0.3, (5, 1)) - level) for level in (*levels, 0.0)
        ]
        *baseline, own = [100.0 * (random.random(share.shape) < share) for share in shares]
        curves = [dict(zip(sizes.tolist(), baseline, strict=True)), {5.0: own}]
        others, replicates = curve_replicates(curves, 400, trial)
        found = needed_with_interval(
            sizes,
            np.array([rows.mean() for rows in baseline]),
            float(own.mean()),
            others,
            replicates[:, 0],
            num_images,
        )
        covered += found.interval.low <= truth <= found.interval.high
    assert 0.935 <= covered / num_trials <= 0.985


def test_models_share_images_and_draws() -> None:
    """The same outcomes give the same replicates, bit for bit, beside others and in any order."""
    random = np.random.default_rng(3)
    ours = {1.0: right(random, 0.4), 5.0: right(random, 0.6, num_draws=1)}
    theirs = {1.0: right(random, 0.2)}
    first, _, third = curve_replicates([ours, theirs, ours], 50)
    np.testing.assert_array_equal(first, third)
    assert first.shape == (50, 2)
    swapped = {5.0: ours[5.0], 1.0: ours[1.0]}
    np.testing.assert_array_equal(curve_replicates([swapped, theirs, ours], 50)[0], first)


def test_impossible_inputs_of_replicates() -> None:
    """Other images, or another number of draws of a size."""
    random = np.random.default_rng(4)
    with pytest.raises(ValueError, match="different test images"):
        curve_replicates([{1.0: right(random, 0.5)}, {1.0: right(random, 0.5, num=3)}], 10)
    with pytest.raises(ValueError, match="different numbers of draws with 1 labels"):
        curve_replicates([{1.0: right(random, 0.5)}, {1.0: right(random, 0.5, num_draws=2)}], 10)


def test_identical_models_need_as_many_labels() -> None:
    """The number itself; replicates leave it only where the curve dips."""
    random = np.random.default_rng(5)
    curve = {size: right(random, 0.2 + 0.06 * size) for size in SIZES}
    found = compare(curve, dict(curve), 5.0)
    assert found.labels == pytest.approx(5)
    assert found.interval.low <= 5 + 1e-9
    assert found.interval.high >= 5 - 1e-9


def test_equal_models_are_not_distinguished() -> None:
    """Independent outcomes of the same accuracies: the interval contains the number itself."""
    random = np.random.default_rng(6)
    ours, theirs = ({size: right(random, 0.2 + 0.06 * size) for size in SIZES} for _ in range(2))
    interval = compare(ours, theirs, 5.0).interval
    assert 1 <= interval.low < 5 < interval.high


def test_a_better_model_saves_labels() -> None:
    """Accuracies of the second model at ten times the labels: ten times as many."""
    random = np.random.default_rng(7)
    sizes = (1.0, 10.0, 100.0)
    ours = {size: right(random, 0.4 + 0.2 * math.log10(size), num=3000) for size in sizes}
    theirs = {size: right(random, 0.2 + 0.2 * math.log10(size), num=3000) for size in sizes}
    found = compare(ours, theirs, 1.0)
    assert found.labels == pytest.approx(10, rel=0.2)
    assert 5 < found.interval.low < 10 < found.interval.high < 20


def test_open_ends() -> None:
    """A baseline that never gets there, or starts above, and one that may or may not."""
    random = np.random.default_rng(8)
    low, high = ({size: right(random, share) for size in SIZES} for share in (0.1, 0.9))
    never = compare(high, low, 2.0)
    assert (never.labels, never.interval.low, never.interval.high) == (math.inf, 10, math.inf)
    always = compare(low, high, 2.0)
    assert (always.labels, always.interval.low, always.interval.high) == (0, 0, 1)
    rising = {size: right(random, 0.3 + 0.02 * size) for size in SIZES}
    perhaps = compare({10.0: right(random, 0.5)}, rising, 10.0).interval
    assert 1 < perhaps.low < 10
    assert perhaps.high == math.inf


def test_a_saving_at_the_largest_number_of_labels() -> None:
    """A baseline that is far below with all labels needs more than there are, by every resample."""
    sizes = np.array([10.0, 300.0])
    far, near = np.full((100, 2), [30.0, 50.0]), np.full((100, 2), [80.0, 90.0])
    beyond = needed_with_interval(sizes, far[0], 80.0, far, np.full(100, 80.0), 600)
    assert (beyond.labels, beyond.is_beyond, beyond.is_below) == (math.inf, True, False)
    below = needed_with_interval(sizes, near[0], 50.0, near, np.full(100, 50.0), 600)
    assert (below.labels, below.is_beyond, below.is_below) == (0.0, False, True)
