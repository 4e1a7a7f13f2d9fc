"""Describe in one line why a command cannot continue: a mistake, or the system's failure."""

import os
import threading

from rsa_pretrain.plumbing.errors import DISK_FAILURES, UserError
from rsa_pretrain.plumbing.loader_processes import why_lost
from rsa_pretrain.plumbing.memory import why_out_of_memory

_NO_PROCESS = (
    "the system starts no more processes or threads; raise ulimit -u or -v, or set fewer "
    "data.num_workers or a smaller OMP_NUM_THREADS"
)
# In what torch.compile raises, for the CPU and for a GPU.
_COMPILERS_MISSED = ("No working C++ compiler found", "Failed to find C compiler")
_NO_COMPILER = (
    "training.compile needs a C++ compiler, such as g++, and none is found; install one, or set "
    "training.compile=false"
)
_MEMORY_ADVICE = (
    "free some or raise its limit, or set smaller batches, fewer images or fewer data.num_workers"
)


def describe_error(error: UserError | OSError) -> str:
    """Return a user's mistake, or a system error with its path, in one line."""
    if isinstance(error, UserError):
        return " ".join(str(error).split())
    lack = _lack_of_memory(error)
    if lack is not None:
        return lack
    if isinstance(error, BlockingIOError) and error.filename is None:  # of fork
        return _NO_PROCESS
    reason = error.strerror or str(error) or type(error).__name__
    if error.errno in DISK_FAILURES:
        reason = f"{reason}; {DISK_FAILURES[error.errno]}"
    if error.filename is None:
        return reason
    name = error.filename
    return f"'{os.fsdecode(name) if isinstance(name, bytes) else name}': {reason}"


def why_failed(error: RuntimeError | MemoryError) -> str | None:
    """Explain a lost loader process, a lack of memory, threads or a compiler; else return None."""
    if str(error) == "can't start new thread":
        return _NO_PROCESS
    if any(text in str(error) for text in _COMPILERS_MISSED):
        return _NO_COMPILER
    lost = why_lost(error) if isinstance(error, RuntimeError) else None
    return lost or _lack_of_memory(error)


def print_unless_raised(failure: threading.ExceptHookArgs) -> None:
    """Print the failure of a thread, but no error of the system.

    A writer such as TensorBoard's raises that in the main thread as well.
    """
    if not isinstance(failure.exc_value, OSError):
        threading.__excepthook__(failure)


def _lack_of_memory(error: Exception) -> str | None:
    reason = why_out_of_memory(error)
    return None if reason is None else f"{reason}; {_MEMORY_ADVICE}"
