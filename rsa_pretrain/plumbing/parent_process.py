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
    """Return the environment of a child that is to stop with this process."""
    return {**environment, _PARENT: str(os.getpid())}


def stop_with_parent() -> None:
    """Get SIGTERM at the parent's death in a child of this toolkit or of torchrun, on Linux."""
    parent = os.environ.pop(_PARENT, None)
    if (parent is None and _TORCHRUN not in os.environ) or sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if parent is not None and os.getppid() != int(parent):  # it died before that
        signal.raise_signal(signal.SIGTERM)
