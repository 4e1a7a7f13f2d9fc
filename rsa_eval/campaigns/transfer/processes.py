"""Run a command for several data sets at a time, one process each."""

import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from rsa_pretrain.plumbing.device import usable_cores
from rsa_pretrain.plumbing.stop_signal import StopSignal

_POLL_SECONDS = 0.2


def run_in_processes(
    commands: Mapping[str, Sequence[str]], num_processes: int, logs: Path
) -> tuple[dict[str, int], int]:
    """Run commands, at most so many at a time, their output in ``LOGS/NAME.log``.

    A signal is passed on, and no further command is started.

    Args:
        commands: By name.
        num_processes: Limit.
        logs: Folder of the logs, created if missing.

    Returns:
        The exit code of each command that ran, and this process's exit code: 0, or that of the
        signal.
    """
    logs.mkdir(parents=True, exist_ok=True)
    threads = str(max(1, usable_cores() // num_processes))
    environment = {"OMP_NUM_THREADS": threads, **os.environ}
    waiting, running, codes = dict(commands), dict[str, subprocess.Popen[bytes]](), {}
    with StopSignal() as stop:
        is_passed_on = False
        while running or (waiting and stop.received is None):
            while waiting and len(running) < num_processes and stop.received is None:
                name = next(iter(waiting))
                running[name] = _start(waiting.pop(name), logs / f"{name}.log", environment)
            if stop.received is not None and not is_passed_on:
                for process in running.values():
                    process.send_signal(stop.received)
                is_passed_on = True
            time.sleep(_POLL_SECONDS)
            for name, process in list(running.items()):
                code = process.poll()
                if code is not None:
                    codes[name] = code
                    del running[name]
        return codes, stop.exit_code


def _start(
    command: Sequence[str], log: Path, environment: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    with log.open("wb") as file:
        return subprocess.Popen(
            command, stdout=file, stderr=subprocess.STDOUT, env=dict(environment)
        )
