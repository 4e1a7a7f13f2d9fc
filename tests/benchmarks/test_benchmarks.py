import mmap
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from benchmarks import __main__ as command
from benchmarks.catalogue import BENCHMARKS
from benchmarks.measure import (
    Benchmark,
    BenchmarkSettings,
    Figure,
    Finding,
    Measurement,
    alternate,
    extra_memory,
    peak_memory,
    rates,
    ratio,
    read_result,
    run_benchmark,
    write_result,
)
from benchmarks.table import PAGE, draw_page
from rsa_pretrain.plumbing.errors import UserError

# So little work that a run takes a second; the numbers mean nothing.
SMALL: dict[str, dict[str, Any]] = {
    "features": {"num_images": 4, "image_size": 32, "batch_size": 3, "repeats": 1},
    "knn": {"num_bank": 300, "num_queries": 20, "width": 16, "k": 30, "repeats": 1},
    "logistic": {
        **{"num_images": 60, "width": 8, "num_classes": 3, "num_values": 3, "num_large": 50},
        **{"num_fitted": 50, "num_steps": 3},
    },
    "step": {"image_size": 16, "batch_size": 4, "repeats": 2},
}
# The two candidates whose times each finding compares, in its order; None: no times.
COMPARED: dict[str, list[tuple[str, str] | None]] = {
    "features": [("bare forward", "extract_features")],
    "knn": [("knn_answers", "products and top-k"), ("knn_answers", "scikit-learn"), None],
    "logistic": [("scikit-learn's L-BFGS", "our path"), None, None, None, None],
    "step": [("RSA", "BYOL (AA)"), ("RSA", "bare passes")],
}


def _constant(value: float) -> Benchmark:
    finding = Finding(what="time over plain", value=value, unit="×", bound="at most", limit=1.3)
    figure = Figure(what="ours", value=1234.5, unit="images/s")
    measured = Measurement([finding], {"ours": [1.0, 2.0, 9.0], "plain": [2.0]}, [figure])
    return Benchmark(BenchmarkSettings, lambda settings: measured, "A test.")


def _fill(mebibytes: int) -> None:
    # Straight from the kernel: an allocator may have resident memory to hand out again.
    with mmap.mmap(-1, mebibytes * 2**20, flags=mmap.MAP_PRIVATE) as block:
        block[:: mmap.PAGESIZE] = bytes(len(block) // mmap.PAGESIZE)


def test_candidates_take_turns() -> None:
    """One untimed run of each, then the timed ones alternating."""
    calls: list[str] = []
    candidates = {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}
    seconds = alternate(candidates, 2, "cpu")
    assert calls == ["a", "b"] * 3
    assert [len(times) for times in seconds.values()] == [2, 2]


def test_another_clock_can_count() -> None:
    """It is read before and after each timed run."""
    clock = iter([0.0, 10.0, 13.0, 20.0, 25.0]).__next__  # the first run is not timed
    assert alternate({"a": lambda: None}, 2, "cpu", clock) == {"a": [3.0, 5.0]}


def test_a_ratio_is_one_of_medians() -> None:
    """One slow run moves it by nothing; the slower candidate is above 1."""
    assert ratio({"a": [2.0, 2.0, 50.0], "b": [1.0, 1.0, 1.0]}, "a", "b") == 2.0
    seconds = alternate({"slow": lambda: time.sleep(0.02), "fast": lambda: None}, 3, "cpu")
    assert ratio(seconds, "slow", "fast") > 2


def test_memory_is_that_of_the_run() -> None:
    """Filling 300 MiB shows as that, though more was filled and freed before."""
    _fill(600)
    assert extra_memory(partial(_fill, 300), "cpu") / 2**20 == pytest.approx(300, abs=5)


@pytest.mark.process
def test_the_peak_is_that_of_a_new_process() -> None:
    """300 MiB more show as that, and are not in the next process's peak."""
    runs = {"many": partial(_fill, 301), "few": partial(_fill, 1)}
    many, few = peak_memory(runs, BenchmarkSettings())
    assert (many.what, many.unit) == ("peak resident memory, many", "MiB")
    assert many.value - few.value == pytest.approx(300, abs=10)


def test_rates_are_those_of_median_runs() -> None:
    """Twenty images in two seconds are ten a second."""
    (rate,) = rates({"a": [2.0, 1.0, 50.0]}, 20)
    assert (rate.what, rate.value, rate.unit) == ("a", 10, "images/s")


@pytest.mark.parametrize(
    ("bound", "value", "met"),
    [("at most", 1.3, True), ("at most", 1.31, False), ("at least", 0.95, False)],
)
def test_bounds(bound: Any, value: float, met: bool) -> None:
    """A number on the bound is within it."""
    assert Finding(what="x", value=value, unit="×", bound=bound, limit=1.3).met is met


def test_results_come_back_and_make_the_table(tmp_path: Path) -> None:
    """The page shows number, bound and verdict, and what was not measured."""
    benchmark = _constant(1.5)
    result = run_benchmark("demo", benchmark, BenchmarkSettings())
    path = write_result(result, tmp_path)
    assert read_result(path) == result
    page = draw_page({"demo": benchmark}, tmp_path)
    assert "| cpu | time over plain | 1.5 × | at most 1.3 | **missed** |  |" in page
    assert "| cpu | ours | 1234 images/s |  | recorded |  |" in page
    assert "| cuda |  | not yet measured |  |  |  |" in page
    assert "Medians: ours 2 s; plain 2 s." in page
    assert result.created[:10] in page
    assert result.hardware in page


def test_a_verdict_names_other_settings_than_the_defaults(tmp_path: Path) -> None:
    """A bound met with other settings is reported with these settings."""
    benchmark = _constant(1.0)
    write_result(run_benchmark("demo", benchmark, BenchmarkSettings(repeats=2)), tmp_path)
    assert "| at most 1.3 | met | repeats=2 |" in draw_page({"demo": benchmark}, tmp_path)


def test_a_damaged_result_is_refused(tmp_path: Path) -> None:
    """It is named, not treated as "not yet measured"."""
    (tmp_path / "demo-cpu.json").write_text("{}")
    with pytest.raises(UserError, match=r"demo-cpu\.json' is not a benchmark result"):
        draw_page({"demo": _constant(1.0)}, tmp_path)


def test_the_command_lists_runs_and_tabulates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 1 means that a number misses its bound, 2 that the arguments were wrong."""
    monkeypatch.setattr(command, "BENCHMARKS", {"good": _constant(1.0), "bad": _constant(2.0)})
    monkeypatch.setattr(command, "PAGE", tmp_path / "BENCHMARKS.md")
    monkeypatch.setattr(command, "write_result", lambda result: write_result(result, tmp_path))
    assert command.main([]) == 0
    assert "good  A test." in capsys.readouterr().out
    assert command.main(["good", "seed=3"]) == 0
    assert command.main(["bad"]) == 1
    assert "2 × (at most 1.3: MISSED)" in capsys.readouterr().out
    assert command.main(["good", "seeds=3"]) == 2
    assert "the nearest valid key is 'seed'" in capsys.readouterr().err
    result = read_result(tmp_path / "good-cpu.json")
    assert result is not None
    assert result.settings["seed"] == 3
    assert (tmp_path / "BENCHMARKS.md").is_file()


@pytest.mark.usefixtures("no_new_process", "narrow_resnets")
@pytest.mark.parametrize("name", SMALL)
def test_benchmarks_run(name: str) -> None:
    """Each times every candidate as often as asked; a finding is the ratio of two medians."""
    benchmark = BENCHMARKS[name]
    settings = benchmark.settings(**SMALL[name])
    measured = benchmark.measure(settings)
    assert all(len(times) == settings.repeats for times in measured.seconds.values())
    for finding, names in zip(measured.findings, COMPARED[name], strict=True):
        if names is not None:
            assert finding.value == ratio(measured.seconds, *names)


def test_the_page_is_up_to_date() -> None:
    """BENCHMARKS.md is what ``python -m benchmarks table`` writes."""
    assert PAGE.read_text(encoding="utf-8") == draw_page(BENCHMARKS)
