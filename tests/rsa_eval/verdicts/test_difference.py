from functools import partial

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats

from rsa_eval.records.class_predictions import ClassPredictions
from rsa_eval.records.ranking_predictions import RankingPredictions
from rsa_eval.statistics.bootstrap import mean_replicates
from rsa_eval.statistics.intervals import Interval
from rsa_eval.statistics.paired import mcnemar
from rsa_eval.statistics.power import Needed, PairDesign, SeedDesign
from rsa_eval.statistics.seeds import welch
from rsa_eval.verdicts.difference import estimate_difference
from rsa_eval.verdicts.resampling import TrialScore

RNG = np.random.default_rng(7)


def scored(
    *right: npt.NDArray[np.bool_], labels: npt.NDArray[np.int64] | None = None
) -> TrialScore:
    """A network that answers these images right, once or in several draws."""
    num_images = len(right[0])
    truth = np.zeros(num_images, int) if labels is None else labels
    ranks = np.stack([np.where(own, 0, 9) for own in right])
    kept = ClassPredictions(truth, ranks, ranks, ("",) * len(right), 10)
    return TrialScore(float(100 * np.mean(right)), kept)


def images(num_images: int, *counts: int) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Two networks: both right, the first alone, the second alone, and none on the rest."""
    both, first, second = counts
    rows = np.arange(num_images)
    alone = (both + first <= rows) & (rows < both + first + second)
    return rows < both + first, (rows < both) | alone


def test_a_pair_by_hand() -> None:
    """Ten images are won and two lost: 20 points on 40, and McNemar's exact p of 2 in 12."""
    first, second = images(40, 10, 10, 2)
    found = estimate_difference([scored(first)], [scored(second)], "top1")
    assert found.value == pytest.approx(20)
    assert found.test == "McNemar's exact test"
    # 2 * (1 + 12 + 66) / 2^12
    assert found.p == pytest.approx(158 / 4096)
    assert found.interval == found.images
    assert 0 < found.interval.low < 20 < found.interval.high
    assert (found.num_images, found.seeds) == (40, None)
    assert found.design == PairDesign(40, 12 / 40)
    # The reverse is the same with the other sign, but for the draws.
    turned = estimate_difference([scored(second)], [scored(first)], "top1")
    assert (turned.value, turned.p) == (-found.value, found.p)
    assert turned.interval.high == pytest.approx(-found.interval.low, abs=2.6)


@pytest.mark.parametrize("num_images", [1, 2, 50])
@pytest.mark.parametrize("right", [0.0, 0.5, 1.0])
def test_identical_networks_differ_by_nothing_and_not_for_certain(
    num_images: int, right: float
) -> None:
    """All right, all wrong, one image: p is 1 and the interval has a width that images shrink."""
    answers = np.arange(num_images) < right * num_images
    pair = [scored(answers)], [scored(answers)]
    found = estimate_difference(*pair, "top1", margin=1)
    assert (found.value, found.p) == (0, 1)
    assert found.interval.low < 0 < found.interval.high
    assert found.equivalence_p is not None
    assert found.equivalence_p > 0.05  # 50 images do not show equivalence within a point
    assert found.design.needed(found.value).images is None
    if num_images == 50:
        assert found.interval.half_width < 12
        wide = estimate_difference(*pair, "top1", margin=20)
        assert wide.equivalence_p is not None
        assert wide.equivalence_p < 0.01


def test_every_image_won() -> None:
    """100 points are a difference for all but a handful of images."""
    all_of, none = np.ones(50, bool), np.zeros(50, bool)
    found = estimate_difference([scored(all_of)], [scored(none)], "top1")
    assert (found.value, found.p) == (100, 2 * 0.5**50)
    assert 85 < found.interval.low < found.interval.high <= 100
    few = estimate_difference([scored(all_of[:2])], [scored(none[:2])], "top1")
    assert few.p == 0.5


def test_draws_of_one_network_are_averaged() -> None:
    """Two draws that disagree count half an image; no single answer, so no McNemar."""
    first = scored(np.array([1, 1, 0, 0], bool), np.array([1, 0, 0, 0], bool))
    second = scored(np.zeros(4, bool), np.zeros(4, bool))
    found = estimate_difference([first], [second], "top1")
    assert found.value == pytest.approx(37.5)
    assert found.test == "paired bootstrap"


def test_a_single_image_proves_nothing() -> None:
    """Nor do five, by whatever test: with six all won, the sign test has p = 2 / 2^6."""
    for num_images in (1, 5, 6):
        right, wrong = np.ones(num_images, bool), np.zeros(num_images, bool)
        for metric, count in (("top1", 1), ("mean_per_class", 1), ("top1", 2)):
            pair = [scored(right)] * count, [scored(wrong)] * count
            found = estimate_difference(*pair, metric, margin=5)
            assert -100 <= found.interval.low <= found.interval.high <= 100
            assert found.p == pytest.approx(2 * 0.5**num_images)
            assert found.equivalence_p is not None
            assert found.equivalence_p > 0.5


def test_a_rare_class_that_agrees_is_uncertain() -> None:
    """Two images of a class, all right in both, leave its accuracy open by tens of points."""
    labels = np.repeat([0, 1], [998, 2])
    pair = [scored(np.ones(1000, bool), labels=labels)] * 2
    found = estimate_difference(pair[:1], pair[1:], "mean_per_class", margin=1)
    assert found.interval.half_width == pytest.approx(100 * (1 - 0.05**0.5))
    assert found.equivalence_p == pytest.approx(0.99**2)


def test_large_differences_have_small_p_values_beyond_the_resamples() -> None:
    """A matrix of many models adjusts for hundreds of pairs; 1,000 resamples alone end at 0.002."""
    labels = np.repeat([0, 1], [500, 500])
    first = scored(np.arange(1000) % 10 > 0, labels=labels)
    second = scored(np.arange(1000) % 2 > 0, labels=labels)
    assert estimate_difference([first], [second], "mean_per_class").p < 1e-20


def test_trials_without_spread_or_answers_show_nothing() -> None:
    """Two equal numbers a side make neither a difference nor its absence certain."""
    for values in ((70.0, 69.99), (70.0, 60.0), (70.0, 70.0)):
        sides = [[TrialScore(value, None)] * 2 for value in values]
        found = estimate_difference(*sides, "top1", margin=5)
        assert (found.p, found.equivalence_p) == (1, 1)
        assert found.interval == Interval(-100, 100)
        assert found.design.needed(found.value) == Needed(None, None, None)


def test_mean_per_class_is_resampled_by_image() -> None:
    """A rare class weighs as much as a frequent one, so its images decide the width."""
    labels = np.repeat([0, 1], [95, 5])
    first = scored(np.ones(100, bool), labels=labels)
    second = scored(labels == 0, labels=labels)
    found = estimate_difference([first], [second], "mean_per_class")
    # The value is that of the record; the interval is of the metric itself, here 50 in each
    # resample that holds the rare class.
    assert found.interval.high == pytest.approx(50, abs=1e-9)
    assert found.test == "paired bootstrap"


def test_average_precision_is_resampled_in_common() -> None:
    """Equal scores never differ; replicates of both sides are of the same images."""
    truth = np.where(RNG.random((60, 2)) < 0.4, 1, -1).astype(np.int8)
    scores = truth + RNG.normal(size=(60, 2))
    same = TrialScore(50.0, RankingPredictions(scores, truth))
    found = estimate_difference([same], [same], "mAP")
    # The images of the rarer class, on which they agree, leave up to 1 - 0.05^(1/n) of others open.
    rarest = int((truth == 1).sum(axis=0).min())
    reach = 100 * (1 - 0.05 ** (1 / rarest))
    assert (found.interval.low, found.interval.high) == pytest.approx((-reach, reach))
    assert found.p == 1
    near, far = (
        estimate_difference([same], [same], "mAP", margin=margin).equivalence_p
        for margin in (1, 10)
    )
    assert (near, far) == (pytest.approx(0.99**rarest), pytest.approx(0.9**rarest))
    better = TrialScore(60.0, RankingPredictions(scores + truth, truth))
    found = estimate_difference([better], [same], "mAP")
    assert found.interval.low > 0
    assert found.p < 0.02


def test_seeds_are_tested_over_seeds_and_images() -> None:
    """The interval spans Student's and the bootstrap's, the p-value is the larger."""
    pool = RNG.random(400)
    first = [scored(RNG.random(400) < 0.5 + 0.4 * pool) for _ in range(4)]
    second = [scored(RNG.random(400) < 0.4 + 0.4 * pool) for _ in range(3)]
    found = estimate_difference(first, second, "top1")
    alone = welch([each.value for each in first], [each.value for each in second])
    assert found.seeds == alone
    assert found.p >= alone.p
    assert found.interval.low <= alone.interval.low
    assert found.interval.high >= alone.interval.high
    assert found.images is not None
    assert found.interval.low <= found.images.low
    assert found.test == "Welch's t test over seeds and bootstrap over seeds and images"


def test_seeds_alone_where_no_answers_are_kept() -> None:
    """Records without predictions can be compared over seeds, and only so."""
    first = [TrialScore(value, None) for value in (70.0, 71.0, 72.0)]
    second = [TrialScore(value, None) for value in (60.0, 61.0, 63.0)]
    found = estimate_difference(first, second, "top1")
    expected = stats.ttest_ind([70, 71, 72], [60, 61, 63], equal_var=False)
    assert found.p == pytest.approx(expected.pvalue)
    assert (found.images, found.num_images) == (None, None)
    paired = estimate_difference(first, second, "top1", is_paired=True)
    assert paired.p == pytest.approx(stats.ttest_rel([70, 71, 72], [60, 61, 63]).pvalue)
    with pytest.raises(ValueError, match="a single trial without predictions"):
        estimate_difference(first[:1], second, "top1")


def test_several_of_one_are_compared_over_images() -> None:
    """One network against two: the two are averaged on each image, seeds are not judged."""
    one = scored(np.array([1, 1, 1, 0] * 25, bool))
    two = [scored(np.array([1, 0, 0, 0] * 25, bool)), scored(np.array([0, 1, 0, 0] * 25, bool))]
    found = estimate_difference([one], two, "top1")
    assert found.value == pytest.approx(50)
    assert (found.seeds, found.test) == (None, "paired bootstrap")


def test_equivalence_over_seeds_needs_both_tests() -> None:
    """Three seeds that scatter by points are not equivalent within one, however many images."""
    steady = [scored(np.arange(2000) < 1000) for _ in range(3)]
    loose = [scored(np.arange(2000) < count) for count in (900, 1000, 1100)]
    near = estimate_difference(steady, steady, "top1", margin=3)
    far = estimate_difference(steady, loose, "top1", margin=3)
    assert near.equivalence_p is not None
    assert far.equivalence_p is not None
    assert near.equivalence_p < 0.05 < far.equivalence_p


def test_sizes_that_would_settle_it() -> None:
    """With that many images, and the same shares, the difference is detected four times in five."""
    first, second = images(400, 200, 30, 20)
    found = estimate_difference([scored(first)], [scored(second)], "top1")
    assert found.p > 0.05
    needed = found.design.needed(found.value)
    assert needed.images is not None
    shares = np.array([30, 20, 350]) / 400
    tables = np.random.default_rng(1).multinomial(needed.images, shares, size=2000)
    shown = [mcnemar(int(won), int(lost)) <= 0.05 for won, lost, _ in tables]
    assert np.mean(shown) == pytest.approx(0.8, abs=0.03)
    assert needed.smallest_difference is not None
    assert needed.smallest_difference > abs(found.value)


def test_the_noise_of_images_is_counted_once() -> None:
    """Trials that differ by their images alone have no variance of seeds, and share none."""
    rng = np.random.default_rng(3)
    sides = [[scored(rng.random(2000) < 0.6) for _ in range(12)] for _ in range(2)]
    design = estimate_difference(*sides, "top1").design
    assert isinstance(design, SeedDesign)
    # A trial's variance over images: 100^2 * 0.6 * 0.4 / 2000.
    assert design.image_noise == pytest.approx((1.2, 1.2), rel=0.2)
    assert max(design.seed_variances) < 0.8
    assert design.common_variance < 0.05
    paired = estimate_difference(*sides, "top1", is_paired=True).design
    assert isinstance(paired, SeedDesign)
    assert paired.num_seeds == (12,)
    assert paired.image_noise == pytest.approx((2.4,), rel=0.2)


def test_few_images_decide_no_metric() -> None:
    """Four won and none lost: no test of four images has a p-value below 1 in 8."""
    labels = np.repeat([0, 1], 50)
    second = np.arange(100) % 2 == 0
    first = second.copy()
    first[[1, 3, 51, 53]] = True
    for metric in ("top1", "mean_per_class"):
        pair = [scored(first, labels=labels)], [scored(second, labels=labels)]
        assert estimate_difference(*pair, metric).p == 0.125


@pytest.fixture
def few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    """400 resamples, for the sake of time."""
    few = partial(mean_replicates, num_resamples=400)
    monkeypatch.setattr("rsa_eval.verdicts.resampling.mean_replicates", few)
    monkeypatch.setattr("rsa_eval.records.class_predictions.mean_replicates", few)


@pytest.mark.usefixtures("few_resamples")
@pytest.mark.parametrize(("num_images", "correlation"), [(50, 0.5), (1000, 0.8)])
def test_the_verdict_errs_in_one_of_twenty(num_images: int, correlation: float) -> None:
    """Of 500 pairs of equally accurate networks at most 5 % are said to differ."""
    errors = 0
    rng = np.random.default_rng(num_images)
    for _ in range(500):
        shared = rng.random(num_images) < correlation
        common = rng.random(num_images) < 0.7
        first, second = (np.where(shared, common, rng.random(num_images) < 0.7) for _ in range(2))
        found = estimate_difference([scored(first)], [scored(second)], "top1")
        errors += found.p <= 0.05 and found.interval.excludes(0)
    assert errors / 500 <= 0.05


@pytest.mark.usefixtures("few_resamples")
@pytest.mark.parametrize("num_seeds", [2, 3, 5])
def test_the_verdict_over_seeds_errs_in_one_of_twenty(num_seeds: int) -> None:
    """Of 200 pairs of methods with equal expectation, over seeds and images, at most 5 %."""
    errors, num_images = 0, 300
    rng = np.random.default_rng(num_seeds)
    for _ in range(200):
        sides = []
        for _ in range(2):
            taste = rng.normal(size=num_images)  # images that this method finds easy
            level = rng.normal(0.6, 0.15, num_seeds)  # and seeds that are lucky
            noise = rng.normal(size=(num_seeds, num_images))
            sides.append(
                [
                    scored(0.7 * taste + own + each > 0)
                    for own, each in zip(level, noise, strict=True)
                ]
            )
        found = estimate_difference(*sides, "top1")
        errors += found.p <= 0.05 and found.interval.excludes(0)
    assert errors / 200 <= 0.05
