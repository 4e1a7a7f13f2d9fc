"""Kill, stop and continue the processes of commands, at random moments and at their writes."""

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from benchmarks.faults.jobs import Job
from benchmarks.faults.trials import Disturb, RunningJob, Trial, undisturbed
from rsa_pretrain.plumbing.command_line import USER_ERROR_EXIT_CODE
from rsa_pretrain.plumbing.stop_signal import exit_code

_PAUSE_SECONDS = 0.5
_KILLED = -signal.SIGKILL
_TERMINATED = (-signal.SIGTERM, exit_code(signal.SIGTERM))

Choose = Callable[[RunningJob], list[int]]


def _main(job: RunningJob) -> list[int]:
    return [job.programs[-1].pid]


def _all(job: RunningJob) -> list[int]:
    return job.processes()


def _loader(job: RunningJob) -> list[int]:
    return job.loaders()[:1]


@dataclass(frozen=True)
class Kill:
    """A signal to some processes of a job.

    Attributes:
        what: For tables.
        number: The signal; SIGSTOP is followed by SIGCONT.
        choose: Returns the processes.
        codes: Exit codes that the job may end with, besides 0.
    """

    what: str
    number: signal.Signals
    choose: Choose
    codes: tuple[int, ...] = ()

    def send_after(self, seconds: float) -> Disturb:
        """Return a function that sends the signal to a running job after some time."""

        def send(job: RunningJob) -> None:
            limit = time.monotonic() + seconds
            while job.is_running() and time.monotonic() < limit:
                time.sleep(0.005)
            chosen = self.choose(job)
            _signal(chosen, self.number)
            if self.number == signal.SIGSTOP:
                time.sleep(_PAUSE_SECONDS)
                _signal(chosen, signal.SIGCONT)

        return send


KILLS = (
    Kill("SIGKILL, main process", signal.SIGKILL, _main, (_KILLED,)),
    Kill("SIGKILL, all processes", signal.SIGKILL, _all, (_KILLED,)),
    Kill("SIGTERM, main process", signal.SIGTERM, _main, _TERMINATED),
    Kill("SIGTERM, all processes", signal.SIGTERM, _all, _TERMINATED),
    Kill("SIGSTOP and SIGCONT, main process", signal.SIGSTOP, _main),
    Kill("SIGSTOP and SIGCONT, all processes", signal.SIGSTOP, _all),
)
KILLS_OF_LOADERS = (
    Kill("SIGKILL, loader process", signal.SIGKILL, _loader, (USER_ERROR_EXIT_CODE,)),
    Kill("SIGTERM, loader process", signal.SIGTERM, _loader, (USER_ERROR_EXIT_CODE,)),
    Kill("SIGSTOP and SIGCONT, loader process", signal.SIGSTOP, _loader),
)
AT_A_WRITE = "SIGKILL at a write"


def kill_trials(
    job: Job, count: int, seconds: float, num_calls: int, chance: random.Random
) -> Iterator[tuple[str, Trial]]:
    """Yield trials of a job, half of them killed at one of its file system calls.

    Args:
        job: What to kill.
        count: Number of trials.
        seconds: Time that it takes undisturbed.
        num_calls: Number of its file system calls.
        chance: Draws the moments.

    Yields:
        The kind of fault, and the trial.
    """
    kills = KILLS + KILLS_OF_LOADERS if job.has_loaders else KILLS
    for number in range(count):
        if number % 2 == 0:
            at = chance.randint(1, num_calls)
            yield AT_A_WRITE, Trial(job, undisturbed, number=at, codes=(_KILLED,))
        else:
            kill = kills[number // 2 % len(kills)]
            after = chance.uniform(0.0, seconds)
            yield kill.what, Trial(job, kill.send_after(after), codes=kill.codes)


def _signal(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue
