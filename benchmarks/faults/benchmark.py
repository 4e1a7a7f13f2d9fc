"""Measure what kills and failing disks cost the toolkit's commands: nothing, once rerun."""

import itertools
import os
import random
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from benchmarks.faults.failing_writes import ERRORS, failing_trials
from benchmarks.faults.jobs import Job, jobs, prepare_inputs
from benchmarks.faults.kills import kill_trials
from benchmarks.faults.preload import build, read_calls
from benchmarks.faults.trees import differences
from benchmarks.faults.trials import Outcome, Trial, run_once, try_fault
from benchmarks.measure import Benchmark, BenchmarkSettings, Figure, Finding, Measurement
from benchmarks.programs import Program, start_server
from rsa_pretrain.plumbing.command_line import say

_FAULTS = {
    "errors": "commands that ended in another way than with their result, an error line or a stop",
    "torn": "files under their final names that were not whole",
    "lost": "files that differ, are missing or too many after the rerun",
    "left": "temporary files left after the rerun",
    "orphans": "processes left",
}


class FaultsSettings(BenchmarkSettings):
    """Number and kinds of the faults; a GPU is not needed."""

    device: Literal["cpu"] = "cpu"
    """Device to run on."""
    repeats: Literal[1] = 1
    """Not used: each fault is tried once."""
    kills: Annotated[int, Field(ge=0)] = 240
    """Kills and stops, spread over the commands."""
    errors: tuple[Literal["ENOSPC", "EIO", "EDQUOT", "EROFS"], ...] = ERRORS
    """Errors that each place of a command that writes meets; [] for none."""
    workers: Annotated[int, Field(ge=1)] = 2
    """Commands disturbed at a time."""
    only: str = ""
    """Commands whose name contains this."""


def measure(settings: FaultsSettings) -> Measurement:
    """Disturb every command, rerun it, and count what is lost."""
    started = time.monotonic()
    count_trials = itertools.count()
    kinds: Counter[str] = Counter()
    wrong: Counter[str] = Counter()
    details: list[str] = []
    known: set[str] = set()
    with tempfile.TemporaryDirectory() as temporary, _preloaded(Path(temporary)) as root:
        prepare_inputs(root / "inputs", lambda words: _run(words, root))
        chosen = [job for job in jobs() if settings.only in job.name]
        weights = sum(job.weight for job in chosen)
        for job in chosen:
            expected, seconds = _reference(job, root)
            calls = read_calls(expected.parent)
            count = round(settings.kills * job.weight / weights)
            chance = random.Random(f"{settings.seed} {job.name}")
            trials = [
                *kill_trials(job, count, seconds, len(calls), chance),
                *failing_trials(job, calls, known, settings.errors),
            ]
            kinds.update(kind for kind, _ in trials)

            def attempt(number: int, trial: Trial, expected: Path = expected) -> Outcome:
                folder = root / "trials" / f"{number}"
                return try_fault(trial, root / "inputs", folder, expected)

            with ThreadPoolExecutor(settings.workers) as pool:
                outcomes = pool.map(attempt, count_trials, (trial for _, trial in trials))
                for (kind, trial), outcome in zip(trials, outcomes, strict=True):
                    for name, found in _wrong(outcome):
                        wrong[name] += len(found)
                        details.append(f"{job.name}, {kind} at {trial.number}: {name}: {found}")
                        say(details[-1])
            say(f"{job.name}: {len(trials)} faults, {time.monotonic() - started:.0f} s so far")
    findings = [
        Finding(what=what, value=wrong[name], unit="", bound="at most", limit=0)
        for name, what in _FAULTS.items()
    ]
    figures = [Figure(what=kind, value=number, unit="faults") for kind, number in kinds.items()]
    figures.append(Figure(what="places that write", value=len(known), unit=""))
    return Measurement(
        findings,
        {"all faults": [time.monotonic() - started]},
        figures,
        {f"finding {number}": detail for number, detail in enumerate(details, 1)},
    )


def _reference(job: Job, root: Path) -> tuple[Path, float]:
    """Run a job twice; return the files and the seconds of the second run.

    Raises:
        RuntimeError: If the two runs differ, so that a comparison means nothing.
    """
    folders = [root / "references" / f"{job.name}-{number}" for number in (1, 2)]
    seconds = [run_once(job, root / "inputs", folder) for folder in folders]
    first, second = (folder / "out" for folder in folders)
    if told := differences(first, second):
        raise RuntimeError(f"two undisturbed runs of '{job.name}' differ: {told}")
    return second, seconds[1]


def _wrong(outcome: Outcome) -> Iterable[tuple[str, list[str]]]:
    for each in fields(outcome):
        if found := getattr(outcome, each.name):
            yield each.name, found


@contextmanager
def _preloaded(root: Path) -> Iterator[Path]:
    """Start the server of programs with the library that injects faults."""
    os.environ["LD_PRELOAD"] = str(build(root))
    try:
        start_server()
        yield root
    finally:
        del os.environ["LD_PRELOAD"]


def _run(words: str, root: Path) -> None:
    program = Program(["-m", *words.split()], {}, root / "preparation")
    if program.wait(600):
        raise RuntimeError(f"{words} failed: {program.stderr[-2000:]}")


BENCHMARK = Benchmark(
    settings=FaultsSettings,
    measure=measure,
    summary="Kills, stops and failing writes of every command, and what a rerun then lacks.",
)
