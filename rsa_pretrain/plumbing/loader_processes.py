"""End loader processes, which ignore signals so that the main process decides."""

import multiprocessing
import signal

_MARKS_OF_A_LOSS = ("DataLoader worker (pid", "shared memory")


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
