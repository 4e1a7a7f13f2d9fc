"""Run a command for several data sets at a time, one process each."""

import os
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from rsa_pretrain.plumbing.atomic_files import make_folder
from rsa_pretrain.plumbing.device import usable_cores
from rsa_pretrain.plumbing.parent_process import child_environment
from rsa_pretrain.plumbing.stop_signal import TimeLimit, exit_code, signals_to_pass_on

_POLL_SECONDS = 0.2


def run_in_processes(
    commands: Mapping[str, Sequence[str]],
    num_processes: int,
    logs: Path,
    budget_minutes: float | None = None,
    tell: Callable[[str, int | None], None] = lambda name, code: None,
) -> tuple[dict[str, int], int]:
    """Run commands, at most so many at a time, their output in ``LOGS/NAME.log``.

    Signals are passed on, and no further command is started. None outlives this function, nor,
    among the toolkit's own, a kill of this process.

    Args:
        commands: By name, at least one.
        num_processes: Limit.
        logs: Folder of the logs, created if missing.
        budget_minutes: Time for all: each command takes what is left as ``--budget-minutes``, and
            none starts later; None sets no limit.
        tell: Called with a command's name and None at its start, and with its exit code at its
            end.

    Returns:
        The exit code of each command that ran, negative for a signal that killed it, and this
        process's exit code: 0, or that of the first signal or of the end of the time.
    """
    make_folder(logs)
    num_processes = min(num_processes, len(commands))
    environment = {"OMP_NUM_THREADS": str(max(1, usable_cores() // num_processes)), **os.environ}
    limit = TimeLimit(budget_minutes)
    waiting, codes = dict(commands), dict[str, int]()
    running: dict[str, subprocess.Popen[bytes]] = {}
    with signals_to_pass_on() as received, _all_ended(running):
        num_passed_on = 0
        while running or (waiting and not received and not limit.is_up):
            while waiting and len(running) < num_processes and not received:
                if (left := limit.minutes_left) == 0:
                    break
                name = next(iter(waiting))
                budget = [] if left is None else ["--budget-minutes", str(left)]
                command = [*waiting.pop(name), *budget]
                running[name] = _start(command, logs / f"{name}.log", environment)
                tell(name, None)
            new = received[num_passed_on:]
            for process in running.values():
                for number in new:
                    process.send_signal(number)
            num_passed_on += len(new)
            time.sleep(_POLL_SECONDS)
            ended = {name: code for name in running if (code := running[name].poll()) is not None}
            codes |= ended
            for name, code in ended.items():
                del running[name]
                tell(name, code)
    if received:
        return codes, exit_code(received[0])
    return codes, limit.exit_code if waiting else 0


@contextmanager
def _all_ended(running: Mapping[str, subprocess.Popen[bytes]]) -> Iterator[None]:
    """Leave no process behind, whatever fails in the block."""
    try:
        yield
    finally:
        for process in running.values():
            process.terminate()
        for process in running.values():
            process.wait()


def _start(
    command: Sequence[str], log: Path, environment: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    """Start a command in a session of itself: Ctrl-C in the terminal must reach it only once."""
    with log.open("wb") as file:
        return subprocess.Popen(
            command,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=child_environment(environment),
            start_new_session=True,
        )
