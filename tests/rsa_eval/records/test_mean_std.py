import pytest

from rsa_eval.records.mean_std import MeanStd


def test_the_deviation_is_that_of_a_sample() -> None:
    """90, 91 and 95: mean 92, squared differences 4 + 1 + 9 = 14, over n - 1 = 2 is 7."""
    found = MeanStd.of([90.0, 91.0, 95.0])
    assert found.mean == 92
    assert found.std == pytest.approx(7**0.5)


def test_one_value_has_no_deviation_and_no_value_no_mean() -> None:
    """A single value has no deviation, rather than a deviation of 0."""
    assert MeanStd.of([90.0]) == MeanStd(mean=90.0, std=None)
    with pytest.raises(ValueError, match="found no values"):
        MeanStd.of([])
