"""Start and end loader processes, which ignore signals so that the main process decides."""

import multiprocessing
import os
import signal
from multiprocessing.queues import Queue
from typing import Any, NoReturn

from rsa_pretrain.plumbing.standard_streams import write_error
from rsa_pretrain.plumbing.stop_signal import leave_signals_to_main_process

_MARKS_OF_A_LOSS = ("DataLoader worker (pid", "shared memory")


def prepare_loader_process(worker: int) -> None:
    """Leave signals to the main process, and end if a batch cannot be sent to it.

    A ``worker_init_fn``. Python's queue would drop the batch, for which the main process would
    wait forever.
    """
    leave_signals_to_main_process(worker)
    Queue._on_queue_feeder_error = staticmethod(_end_unsent)  # type: ignore[attr-defined]


def _end_unsent(error: Exception, _batch: Any) -> NoReturn:
    write_error(
        f"a loader process cannot send a batch: {error} (TMPDIR may be a path too long for a "
        "socket, or ulimit -n too low)\n"
    )
    os._exit(1)


def why_lost(error: RuntimeError | MemoryError) -> str | None:
    """Explain to a user why a loader process ended; None for any other error.

    Args:
        error: Raised by torch, anywhere in the main process, when a loader process dies or gets no
            memory to send a batch.
    """
    if not any(mark in str(error) for mark in _MARKS_OF_A_LOSS):
        return None
    reason = str(error).strip().rpartition("\n")[2]
    return (
        f"a loader process ended ({reason}); the machine may lack memory or shared memory: "
        "try fewer data.num_workers"
    )


def end_loader_processes() -> None:
    """End the processes that a command leaves behind, whatever their state.

    Python's own exit sends SIGTERM and waits, forever if they ignore it.
    """
    left = multiprocessing.active_children()
    if not left:
        return
    # torch raises an error when a loader process dies; these deaths are intended.
    previous = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for process in left:
        process.kill()
    for process in left:
        process.join()
    signal.signal(signal.SIGCHLD, previous or signal.SIG_DFL)
