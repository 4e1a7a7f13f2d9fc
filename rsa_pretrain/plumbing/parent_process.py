"""Stop a process whose parent is killed: nothing else would stop it or show that it still runs."""

import ctypes
import os
import signal
import sys
from collections.abc import Mapping

_PARENT = "RSA_PARENT_PID"
_TORCHRUN = "TORCHELASTIC_RUN_ID"
_PR_SET_PDEATHSIG = 1


def child_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a command that is to stop with this process."""
    return {**environment, _PARENT: str(os.getpid())}


def stop_with_launcher() -> None:
    """Stop a command with the process that started it, if that is the toolkit or torchrun."""
    parent = os.environ.pop(_PARENT, None)
    if parent is not None:
        stop_with(int(parent))
    elif _TORCHRUN in os.environ:
        stop_with(os.getppid())


def stop_with(parent: int) -> None:
    """Have the system send this process SIGTERM when its parent dies; only Linux does that."""
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it has died already
        signal.raise_signal(signal.SIGTERM)
