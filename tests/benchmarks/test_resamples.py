import pytest

from benchmarks.catalogue import BENCHMARKS
from benchmarks.measure import ratio


def test_the_loop_is_scaled_to_as_many_resamples() -> None:
    """The time is that of all resamples, its ratio to one of four times the loop's."""
    benchmark = BENCHMARKS["resamples"]
    sizes = {"num_images": 300, "num_resamples": 80, "num_loop_resamples": 20, "repeats": 1}
    measured = benchmark.measure(benchmark.settings(**sizes))
    time, over_loop = measured.findings
    assert time.what == "80 paired resamples of 300 images: time"
    assert [time.value] == measured.seconds["mean_replicates"]
    compared = ratio(measured.seconds, "mean_replicates", "loop over resamples")
    assert over_loop.value == pytest.approx(compared / 4)
    assert [(one.bound, one.limit) for one in measured.findings] == [
        ("at most", 1),
        ("at most", 0.1),
    ]
