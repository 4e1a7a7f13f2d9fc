"""Run a command under a fault, then once more without, and see what is lost."""

import ctypes
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.faults.jobs import Job
from benchmarks.faults.preload import injection
from benchmarks.faults.trees import differences, leftovers, torn_files
from benchmarks.programs import Program, environments_of_ranks

_MARK = "FAULT_TRIAL"  # environment variable of all processes of a trial
_SECONDS_TO_END = 15
_SECONDS_LIMIT = 300

Disturb = Callable[["RunningJob"], None]


def undisturbed(job: "RunningJob") -> None:
    """Leave a running job alone."""


@dataclass(frozen=True)
class Trial:
    """A job and its fault.

    Attributes:
        job: The command.
        disturb: Called once it runs.
        number: File system call to fail at, from 1; 0 for none.
        error: errno of the failure; 0 kills the process at the call.
        codes: Exit codes that its processes may end with, besides 0.
    """

    job: Job
    disturb: Disturb
    number: int = 0
    error: int = 0
    codes: tuple[int, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """List what was wrong in a trial; each list is empty if nothing was.

    Attributes:
        errors: Of how the command, or the command run again, ended.
        torn: Files under their final names that were not whole after the fault.
        lost: Differences of the end state from an undisturbed one's.
        left: Temporary files there at the end.
        orphans: Processes that outlived the command.
    """

    errors: list[str] = field(default_factory=list)
    torn: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    orphans: list[str] = field(default_factory=list)


class RunningJob:
    """The processes of a job.

    Args:
        job: What to run.
        inputs: What it reads.
        folder: Receives its outputs in ``out``, and its logs.
        faults: Variables that make its file system calls fail.
    """

    def __init__(self, job: Job, inputs: Path, folder: Path, faults: dict[str, str]) -> None:
        self.job = job
        name = f"{folder.name}-{time.monotonic_ns()}"
        ranks = environments_of_ranks(job.ranks) if job.ranks > 1 else iter([{}])
        self._mark = f"{_MARK}={name}".encode()
        common = {_MARK: name} | faults
        self.programs = [
            Program(job.words(inputs), common | rank, folder / name, folder, _arm_faults)
            for rank in ranks
        ]

    def processes(self) -> list[int]:
        """Return the numbers of all its living processes."""
        return list(_processes({one.pid for one in self.programs}, self._mark))

    def loaders(self) -> list[int]:
        """Return the numbers of those that its main processes have started."""
        started = {one.pid for one in self.programs}
        return [pid for pid in self.processes() if pid not in started]

    def is_running(self) -> bool:
        """Return whether any main process runs."""
        return any(one.poll() is None for one in self.programs)

    def wait(self) -> list[int]:
        """Wait for its end; return the exit codes.

        As with torchrun, once a process has failed the others are ended.

        Raises:
            subprocess.TimeoutExpired: If it hangs; it is killed.
        """
        limit = time.monotonic() + _SECONDS_LIMIT
        failed = False
        while self.is_running() and time.monotonic() < limit:
            if not failed and any(one.poll() not in (None, 0) for one in self.programs):
                failed = True
                limit = time.monotonic() + _SECONDS_TO_END
                for one in self.programs:
                    if one.poll() is None:
                        os.kill(one.pid, signal.SIGTERM)
            time.sleep(0.02)
        hangs = self.is_running() and not failed
        for one in self.programs:
            one.kill()
        if hangs:
            self.end()
            raise subprocess.TimeoutExpired(self.job.command, _SECONDS_LIMIT)
        return [one.wait() for one in self.programs]

    def end(self) -> list[int]:
        """Give what is left of it a moment, kill it, and return the numbers of those killed."""
        limit = time.monotonic() + _SECONDS_TO_END
        while (left := self.processes()) and time.monotonic() < limit:
            time.sleep(0.05)
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return left


def run_once(job: Job, inputs: Path, folder: Path) -> float:
    """Run a job undisturbed, its file system calls logged in a folder; return its seconds.

    Raises:
        RuntimeError: If it fails.
    """
    folder.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    running = RunningJob(job, inputs, folder, injection(folder))
    codes = running.wait()
    running.end()
    if any(codes):
        raise RuntimeError(f"it ended with {codes}: {running.programs[0].stderr[-1500:]}")
    return time.monotonic() - started


def try_fault(trial: Trial, inputs: Path, folder: Path, expected: Path) -> Outcome:
    """Run a job under a fault, rerun it, and compare its files with an undisturbed run's.

    A job that runs once is left alone if its result is there and whole.

    Args:
        trial: Job and fault.
        inputs: What the job reads.
        folder: Place of the trial; removed if nothing is wrong.
        expected: Files of an undisturbed run.
    """
    folder.mkdir(parents=True)
    faults = injection(folder, trial.number, trial.error)
    running = RunningJob(trial.job, inputs, folder, faults)
    trial.disturb(running)
    try:
        codes = running.wait()
    except subprocess.TimeoutExpired:
        return Outcome(errors=["it hangs"])
    orphans = [str(pid) for pid in running.end()]
    errors = list(_wrong_ends(codes, trial.codes, running.programs[0].stderr))
    out = folder / "out"
    torn = torn_files(out)
    try:
        if not trial.job.once or differences(expected, out):
            run_once(trial.job, inputs, folder)
    except (RuntimeError, subprocess.TimeoutExpired) as error:
        errors.append(f"rerun: {error}")
    left = leftovers(out)
    lost = differences(expected, out, ignored=left)
    outcome = Outcome(errors, torn, lost, left, orphans)
    if outcome == Outcome():
        shutil.rmtree(folder)
    return outcome


def _wrong_ends(codes: list[int], allowed: tuple[int, ...], stderr: str) -> Iterator[str]:
    ends = {*codes} - {0, *allowed}
    if len(codes) > 1:  # the others are ended, or end because they have lost one
        ends -= {-signal.SIGTERM, 128 + signal.SIGTERM, 2}
    if ends:
        yield f"it ended with {codes}"
    if "Traceback" in stderr and 2 in allowed and len(codes) == 1:
        yield f"traceback: {stderr.splitlines()[-1]}"
    errors = [line for line in stderr.splitlines() if line.startswith("error:")]
    if 2 in codes and len(codes) == 1 and len(errors) != 1:
        yield f"{len(errors)} error lines"


@contextmanager
def _arm_faults() -> Iterator[None]:
    ctypes.CDLL(None).fault_arm()
    yield


def _processes(sessions: set[int], mark: bytes) -> Iterable[int]:
    """Yield the living processes of sessions, and those with a mark in their environment."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        try:
            environment = (entry / "environ").read_bytes()
            # After the name in parentheses: state, parent, group, session.
            state, _, _, session = (entry / "stat").read_text().rpartition(")")[2].split()[:4]
        except OSError:
            continue
        if state != "Z" and (int(session) in sessions or mark in environment.split(b"\0")):
            yield int(entry.name)
