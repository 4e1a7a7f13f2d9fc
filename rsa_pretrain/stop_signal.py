"""SIGTERM, SIGINT and SIGUSR1 as a request to stop cleanly."""

import signal
from types import FrameType, TracebackType
from typing import Self

# SIGUSR1 is what clusters are told to send some time before they take the machine back.
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


class Stopped(Exception):
    """A signal stopped a command, which has saved what it needs to go on.

    Args:
        received: The signal.
        message: Where it stopped and how to go on.
    """

    def __init__(self, received: signal.Signals, message: str) -> None:
        super().__init__(message)
        self.received = received


class StopSignal:
    """While entered, the first of these signals is only noted; a second one acts at once.

    The loop asks ``received`` between steps, saves and leaves.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None

    @property
    def exit_code(self) -> int:
        """0 if no signal came, else that of the signal."""
        return 0 if self.received is None else exit_code(self.received)

    def __enter__(self) -> Self:
        self._previous = {number: signal.signal(number, self._note) for number in _SIGNALS}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._restore()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number)
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)


def exit_code(received: signal.Signals) -> int:
    """Return the shell's exit code for a signal, 128 + its number."""
    return 128 + received


def leave_signals_to_main_process(_worker: int) -> None:
    """Ignore these signals in a loader process; a ``worker_init_fn``.

    Ctrl-C and cluster managers signal the whole process group; the workers must go on feeding
    the main process until it has stopped.
    """
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
