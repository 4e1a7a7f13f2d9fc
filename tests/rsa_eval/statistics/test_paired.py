import numpy as np
import pytest
from statsmodels.stats.contingency_tables import mcnemar as reference_mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.weightstats import DescrStatsW

from rsa_eval.statistics.paired import equivalence_p, holm, mcnemar


@pytest.mark.parametrize("counts", [(5, 12), (12, 5), (0, 3), (7, 7), (0, 1), (300, 380)])
def test_mcnemar_is_the_exact_one_of_statsmodels(counts: tuple[int, int]) -> None:
    """In either order."""
    expected = reference_mcnemar([[40, counts[0]], [counts[1], 9]], exact=True).pvalue
    assert mcnemar(*counts) == pytest.approx(min(1.0, expected))


def test_models_that_never_disagree_do_not_differ() -> None:
    """Identical models have p = 1; negative counts are refused."""
    assert mcnemar(0, 0) == 1.0
    with pytest.raises(ValueError, match="found counts -1 and 2"):
        mcnemar(-1, 2)


def test_holm_is_that_of_statsmodels() -> None:
    """In the given order, with ties, and capped at 1."""
    rng = np.random.default_rng(0)
    for size in (1, 2, 7):
        raw = [*rng.random(size) ** 3, 0.01, 0.01, 0.9]
        assert holm(raw) == pytest.approx(multipletests(raw, method="holm")[1].tolist())
    assert holm([]) == []
    with pytest.raises(ValueError, match=r"expected each in \[0, 1\]"):
        holm([0.5, float("nan")])


@pytest.mark.parametrize("shift", [0.0, 0.3, -0.3, 1.2])
def test_equivalence_is_two_one_sided_tests(shift: float) -> None:
    """As statsmodels' t tests of as many images that their tails are normal."""
    values = np.random.default_rng(0).normal(size=2000)
    values = shift + 20 * (values - values.mean())
    expected = DescrStatsW(values).ttost_mean(-1, 1)[0]
    replicates = np.random.default_rng(1).normal(shift, values.std() / 2000**0.5, size=200_000)
    assert equivalence_p(replicates, 1) == pytest.approx(expected, abs=0.002)


def test_equivalence_counts_replicates_on_the_margin_against_it() -> None:
    """One is added, NaN is left out."""
    replicates = np.array([-1.0, *[0.0] * 17, 1.0, np.nan])
    assert equivalence_p(replicates, 1.0) == 2 / 20
    assert equivalence_p(replicates, 1.5) == 1 / 20


def test_equivalence_needs_a_margin() -> None:
    """A positive one, and a replicate."""
    with pytest.raises(ValueError, match="found margin 0; expected a positive one"):
        equivalence_p(np.zeros(3), 0)
    with pytest.raises(ValueError, match="undefined in every resample"):
        equivalence_p(np.array([np.nan]), 1)
