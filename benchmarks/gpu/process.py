"""Run a command under a time limit, and leave none of its processes behind."""

import os
import signal
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Literal

from rsa_pretrain.plumbing.stop_signal import StopSignal

_GRACE_SECONDS = 5.0
_POLL_SECONDS = 0.05

End = Literal["ended", "killed", "interrupted"]


def run_limited(
    command: list[str],
    folder: Path,
    log: Path,
    seconds: float,
    stop: StopSignal,
    environment: Mapping[str, str],
) -> tuple[End, int | None]:
    """Run a command in its own process group, which is ended with it.

    Args:
        command: Program and words.
        folder: Working folder.
        log: Receives all output.
        seconds: Time limit; the group is then asked to stop, and killed five seconds later.
        stop: A signal ends the command as the limit does.
        environment: All variables.

    Returns:
        How it ended, and its exit code if it ended by itself.
    """
    deadline = time.monotonic() + seconds
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=dict(environment),
            start_new_session=True,
        )
        try:
            while process.poll() is None:
                if stop.received is not None:
                    return "interrupted", None
                if time.monotonic() >= deadline:
                    return "killed", None
                time.sleep(_POLL_SECONDS)
            return "ended", process.returncode
        finally:
            _end_group(process)


def _end_group(process: "subprocess.Popen[bytes]") -> None:
    """End what is left of a process group: politely, then at once."""
    if process.poll() is None:
        _signal_group(process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE_SECONDS)
    _signal_group(process.pid, signal.SIGKILL)
    process.wait()


def _signal_group(group: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(group, number)
