import os
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.catalogue import BENCHMARKS
from benchmarks.gpu import run
from benchmarks.gpu.items import ITEMS, Item
from benchmarks.gpu.outcome import Outcome
from benchmarks.gpu.run import Job, item_command, last_words, outcomes_of, run_job
from benchmarks.measure import (
    Benchmark,
    BenchmarkSettings,
    Figure,
    Measurement,
    run_benchmark,
)
from rsa_pretrain.plumbing.config.files import load_config

FIGURE = Figure(what="speed", value=7.0, unit="images/s")
RESULT = run_benchmark(
    "good",
    Benchmark(BenchmarkSettings, lambda _: Measurement([], {}, [FIGURE]), "A test."),
    BenchmarkSettings(),
)
GOOD, BAD, SLOW, MORE = (Item(name, name, 1, cut=1) for name in ("good", "bad", "slow", "more"))


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Job]:
    """A function that makes a job of items, each a line of a shell."""
    done = tmp_path / "result.json"
    done.write_text(RESULT.model_dump_json())
    lines = {
        "good": "cp $0 $1/good-cpu.json",
        "more": "cp $0 $1/more-cpu.json; exit 1",  # a number misses its bound
        "bad": "echo fine; echo 'error: no such thing'; echo bye; exit 2",
        "slow": "echo 1 of 2; sleep 60",
        "stop": f"kill -TERM {os.getpid()}; sleep 60",
    }

    def command(job: Job, item: Item, limit: float) -> list[str]:
        return ["sh", "-c", lines[item.name], str(done), str(job.out / item.name)]

    monkeypatch.setattr(run, "item_command", command)
    monkeypatch.setattr("benchmarks.gpu.process._GRACE_SECONDS", 0.2)

    def make(*items: Item, seconds: float = 600.0) -> Job:
        return Job(items, "cpu", tmp_path / "out", seconds, None, items)

    return make


def test_each_item_is_recorded_and_the_next_runs(job: Callable[..., Job]) -> None:
    """A failure and a limit are stated with their reason; the table has all at each moment."""
    jobs = job(BAD, SLOW, GOOD)
    tables = []

    def keep(outcome: Outcome) -> None:
        tables.append((jobs.out / "table.md").read_text())

    assert run_job(jobs, keep) == 1
    found = outcomes_of(jobs.out)
    assert [found[item.name].state for item in jobs.items] == ["failed", "killed", "measured"]
    assert found["bad"].reason == "exit code 2; error: no such thing"
    assert found["slow"].reason == "its 2 s were over; 1 of 2"
    assert found["good"].result == RESULT
    assert "error: no such thing" in tables[0]
    assert "7 images/s" in tables[2]
    assert (jobs.out / "slow" / "log.txt").read_text() == "1 of 2\n"


def test_all_measured_is_success(job: Callable[..., Job]) -> None:
    """Also where a number misses its bound, which the table says."""
    assert run_job(job(GOOD, MORE), lambda _: None) == 0


def test_earlier_outcomes_stay(job: Callable[..., Job]) -> None:
    """Items run by another call are in the folder and in its table."""
    run_job(job(GOOD), lambda _: None)
    later = job(BAD)
    run_job(later, lambda _: None)
    assert set(outcomes_of(later.out)) == {"good", "bad"}


def test_a_signal_ends_the_command_and_keeps_what_there_is(job: Callable[..., Job]) -> None:
    """The exit code is the signal's; what follows is left out."""
    stopped = job(GOOD, Item("stop", "stop", 60, cut=1), MORE)
    assert run_job(stopped, lambda _: None) == 128 + 15
    found = outcomes_of(stopped.out)
    assert {name: outcome.state for name, outcome in found.items()} == {
        "good": "measured",
        "stop": "interrupted",
    }


def test_what_does_not_fit_is_cut(job: Callable[..., Job]) -> None:
    """With the reason; what is missing from the machine is skipped."""
    long = Item("slow", "slow", 500, cut=1)
    absent = Item("more", "more", 1, cut=2, needs="no_such_package")
    short = job(long, absent, GOOD, seconds=100)
    assert run_job(short, lambda _: None) == 1
    found = outcomes_of(short.out)
    assert [found[item.name].state for item in short.items] == ["cut", "skipped", "measured"]
    assert "it takes about 500 s, and 92 s were left" in str(found["slow"].reason)
    assert found["more"].reason == "no_such_package is not installed"


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("item", ITEMS, ids=lambda item: item.name)
def test_commands_are_valid(item: Item, device: str, tmp_path: Path) -> None:
    """Their words are settings of the benchmark, on a GPU and in a rehearsal."""
    job = Job(ITEMS, device, tmp_path, 900, tmp_path, ITEMS)  # type: ignore[arg-type]
    _, *start, benchmark, option, folder = item_command(job, item, 140.0)[:6]
    assert [*start, option, folder] == ["-m", "benchmarks", "--results", str(tmp_path / item.name)]
    words = item_command(job, item, 140.0)[6:]
    settings = load_config(BENCHMARKS[benchmark].settings, None, words)
    assert settings.device == device
    assert getattr(settings, "minutes", 2) == 2


def test_the_last_words_are_an_error_or_a_line(tmp_path: Path) -> None:
    """A traceback's last line rather than a hint below it; a bar's last state."""
    log = tmp_path / "log.txt"
    log.write_text("Traceback\n  x\ntorch.OutOfMemoryError: CUDA out of memory\n\nSet X=1\n")
    assert last_words(log) == "torch.OutOfMemoryError: CUDA out of memory"
    log.write_text("a 1 %\ra 2 %\r\n")
    assert last_words(log) == "a 2 %"
    log.write_text("")
    assert last_words(log) == ""
