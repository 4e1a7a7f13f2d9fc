"""Run the items one after another within a budget, and lose nothing that was measured."""

import json
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from benchmarks.gpu.items import Item
from benchmarks.gpu.outcome import Outcome, State, read_outcomes, write_outcome
from benchmarks.gpu.outcome_table import outcome_page
from benchmarks.gpu.plan import kept_items, limit_of
from benchmarks.gpu.process import run_limited
from benchmarks.measure import Device, read_result, result_path
from rsa_pretrain.plumbing.atomic_files import write_text
from rsa_pretrain.plumbing.command_line import say
from rsa_pretrain.plumbing.stop_signal import StopSignal

ROOT = Path(__file__).parents[2]
LOG_FILE, TABLE_FILE = "log.txt", "table.md"
_OUTCOMES = "outcomes"
# An error of a command, or the end of a traceback.
_ERROR = re.compile(r"error: |[\w.]+(Error|Exception|Exit)\b")
_REASON_LENGTH = 200
# Kept for the last item's end and the table.
_CLOSING_SECONDS = 8.0
# Until an item's process has imported torch and begins to measure, and for its end.
_START_SECONDS = 20.0


@dataclass(frozen=True)
class Job:
    """A GPU's time, or its rehearsal on a CPU."""

    items: Sequence[Item]
    """To run, in order."""
    device: Device
    """A CPU rehearses."""
    out: Path
    """Receives each item's log and files, all outcomes and the table."""
    seconds: float
    """Time for everything."""
    data_root: Path | None
    """Folder with cifar-10-batches-py; None: none is needed, or there is none."""
    shown: Sequence[Item]
    """Items of the table, those of earlier runs included."""


def run_job(job: Job, keep: Callable[[Outcome], None]) -> int:
    """Run the items; after each, write its outcome and the table.

    Args:
        job: Items, folder and budget.
        keep: Also receives each outcome.

    Returns:
        0 if all items were measured, otherwise 1; 128 + its number after a signal.
    """
    end = time.monotonic() + job.seconds - _CLOSING_SECONDS
    states: list[State] = []
    with StopSignal() as stop:
        for number, item in enumerate(job.items):
            outcome = _next_outcome(job, number, end, stop)
            states.append(outcome.state)
            write_outcome(outcome, job.out / _OUTCOMES)
            write_text(job.out / TABLE_FILE, outcome_page(job.shown, outcomes_of(job.out)))
            keep(outcome)
            reason = "" if outcome.reason is None else f": {outcome.reason}"
            say(f"{item.name}: {outcome.state} in {outcome.seconds:.0f} s{reason}")
            if stop.received is not None:
                break
    if stop.received is not None:
        return stop.exit_code
    return 0 if all(state == "measured" for state in states) else 1


def outcomes_of(out: Path) -> dict[str, Outcome]:
    """Read the outcomes in a job's folder, by item."""
    return read_outcomes(out / _OUTCOMES)


def item_command(job: Job, item: Item, limit: float) -> list[str]:
    """Return the command that measures an item."""
    folder = job.out / item.name
    settings = {"device": job.device}
    settings |= item.on_gpu if job.device == "cuda" else item.in_rehearsal
    if item.fills:
        minutes = round(max(limit - _START_SECONDS, 1) / 60, 2)
        settings |= {"minutes": minutes, "out": str(folder)}
        settings |= {} if job.data_root is None else {"data_root": str(job.data_root)}
    words = [f"{key}={json.dumps(value)}" for key, value in settings.items()]
    return [sys.executable, "-m", "benchmarks", item.benchmark, "--results", str(folder), *words]


def _next_outcome(job: Job, number: int, end: float, stop: StopSignal) -> Outcome:
    item, left = job.items[number], end - time.monotonic()
    obstacle = _obstacle(job, item)
    if obstacle is not None:
        return Outcome(item=item.name, state="skipped", reason=obstacle)
    pending = [item, *(later for later in job.items[number + 1 :] if not _obstacle(job, later))]
    kept = kept_items(pending, left)
    if item not in kept or left <= 0:
        reason = f"it takes about {item.seconds:.0f} s, and {max(left, 0):.0f} s were left"
        return Outcome(item=item.name, state="cut", reason=f"{reason} for it and what follows")
    return _run_item(job, item, limit_of(item, kept[1:], left), stop)


def _obstacle(job: Job, item: Item) -> str | None:
    if item.needs is not None and find_spec(item.needs) is None:
        return f"{item.needs} is not installed"
    if item.fills and job.device == "cuda" and job.data_root is None:
        return "there is no cifar-10-batches-py in --data-root, nor in $RSA_DATA/cifar10"
    return None


def _run_item(job: Job, item: Item, limit: float, stop: StopSignal) -> Outcome:
    folder = job.out / item.name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    say(f"{item.name}: up to {limit:.0f} s; {folder / LOG_FILE}")
    # Benchmarks draw their images: unpacking real ones takes ten seconds.
    environment = {name: text for name, text in os.environ.items() if name != "RSA_DATA"}
    environment["PYTHONUNBUFFERED"] = "1"
    if job.device == "cpu":
        environment["TORCHDYNAMO_DISABLE"] = "1"  # compiling for a CPU takes minutes
    started = time.monotonic()
    ended, code = run_limited(
        item_command(job, item, limit), ROOT, folder / LOG_FILE, limit, stop, environment
    )
    seconds = time.monotonic() - started
    # An item is killed only with its result unwritten, or while its processes end.
    result = read_result(result_path(item.benchmark, job.device, folder))
    if result is not None:
        return Outcome(item=item.name, state="measured", seconds=seconds, result=result)
    state: State = "failed" if ended == "ended" else ended
    reason = {
        "failed": f"exit code {code}",
        "killed": f"its {limit:.0f} s were over",
        "interrupted": "a signal ended the command",
    }[state]
    said = last_words(folder / LOG_FILE)
    return Outcome(
        item=item.name,
        state=state,
        reason=f"{reason}; {said}" if said else reason,
        seconds=seconds,
    )


def last_words(log: Path) -> str:
    """Return the last error that a log names, otherwise its last line with text, shortened."""
    text = log.read_text(encoding="utf-8", errors="replace").replace("\r", "\n")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if _ERROR.match(line)]
    return (errors or lines or [""])[-1][:_REASON_LENGTH]
