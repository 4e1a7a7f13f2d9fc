"""Treat SIGTERM, SIGINT, SIGUSR1 and SIGALRM as requests to stop cleanly."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Self

# Clusters can be told to send SIGUSR1 some time before they reclaim the machine; SIGALRM is the
# alarm of a ``TimeLimit``.
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGALRM)

_REPEAT_SECONDS = 1.0


class Stopped(Exception):
    """A signal stopped a command, which has saved what it needs to resume.

    Args:
        received: The signal.
        message: Where it stopped and how to resume.
    """

    def __init__(self, received: signal.Signals, message: str) -> None:
        super().__init__(message)
        self.received = received


class StopSignal:
    """While entered, the first of these signals is only noted; a second one acts at once.

    The loop checks ``received`` between steps, saves and exits. Python lets only its main thread
    handle signals: in another one none is noted.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None

    @property
    def exit_code(self) -> int:
        """0 if no signal was received, else the signal's exit code."""
        return 0 if self.received is None else exit_code(self.received)

    def __enter__(self) -> Self:
        in_main_thread = threading.current_thread() is threading.main_thread()
        numbers = _SIGNALS if in_main_thread else ()
        self._previous = {number: signal.signal(number, self._note) for number in numbers}
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


@contextmanager
def signals_to_pass_on() -> Iterator[list[signal.Signals]]:
    """Yield a list of the signals received, which act on other processes, not on this one.

    The signal of a closed terminal is among them, unless it is ignored as under nohup.
    """
    received: list[signal.Signals] = []
    numbers = [*_SIGNALS]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    previous = {
        number: signal.signal(number, lambda got, _: received.append(signal.Signals(got)))
        for number in numbers
    }
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


class TimeLimit:
    """While entered, this process is asked to stop at the end of a time limit, as by a signal.

    The alarm then repeats, so that a loop entered later also stops. Code without a ``StopSignal``
    is not disturbed.

    Args:
        minutes: None sets no limit.
    """

    def __init__(self, minutes: float | None) -> None:
        self.minutes = minutes
        self._started = time.monotonic()

    @property
    def minutes_left(self) -> float | None:
        """Minutes until the time is up, at least 0; None without a limit."""
        if self.minutes is None:
            return None
        return max(0.0, self.minutes - (time.monotonic() - self._started) / 60)

    @property
    def is_up(self) -> bool:
        """Return whether the time is up, by this process's clock."""
        return self.minutes_left == 0

    @property
    def exit_code(self) -> int:
        """Exit code of a command that ends when the time is up."""
        return exit_code(signal.SIGALRM)

    def __enter__(self) -> Self:
        if self.minutes is not None:
            self._previous = signal.signal(signal.SIGALRM, lambda _number, _frame: None)
            signal.setitimer(signal.ITIMER_REAL, 60 * self.minutes, _REPEAT_SECONDS)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.minutes is not None:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, self._previous)


def exit_code(received: signal.Signals) -> int:
    """Return the shell's exit code for a signal, 128 + its number."""
    return 128 + received


@contextmanager
def signals_delayed() -> Iterator[None]:
    """Keep these signals from this thread, and from processes it starts, until the block ends."""
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)


def leave_signals_to_main_process(_worker: int) -> None:
    """Ignore these signals in a loader process that was started with them delayed.

    Ctrl-C and cluster managers signal the whole process group; the workers must keep feeding
    the main process until it has stopped.
    """
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
