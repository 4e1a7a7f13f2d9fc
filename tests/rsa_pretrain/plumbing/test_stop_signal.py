import signal
import time

import pytest

from rsa_pretrain.plumbing import stop_signal
from rsa_pretrain.plumbing.stop_signal import StopSignal, TimeLimit

SOON = 0.05 / 60
LATE_SECONDS = 20.0


def wait_for(stop):
    """Work until the signal is noted, in vain after a while."""
    started = time.monotonic()
    while stop.received is None and time.monotonic() - started < LATE_SECONDS:
        time.sleep(0.005)
    return stop.received


def test_a_time_that_is_up_asks_each_loop_to_stop(monkeypatch):
    """The loop that runs when it is up, and one that starts later; then the clock is off."""
    monkeypatch.setattr(stop_signal, "_REPEAT_SECONDS", 0.02)
    before = signal.getsignal(signal.SIGALRM)
    with TimeLimit(SOON) as limit:
        assert not limit.is_up
        for _ in range(2):
            with StopSignal() as stop:
                assert wait_for(stop) == signal.SIGALRM
            assert stop.exit_code == limit.exit_code == 142
        assert limit.is_up
        time.sleep(0.1)  # alarms without a loop do nothing
    assert signal.getsignal(signal.SIGALRM) == before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_another_signal_comes_through_a_time_limit():
    """A signal other than the clock's is noted as it is without a limit."""
    with TimeLimit(60), StopSignal() as stop:
        signal.raise_signal(signal.SIGTERM)
        assert stop.received == signal.SIGTERM


@pytest.mark.parametrize("minutes", [None, 60])
def test_a_time_to_spare_stops_nothing(minutes):
    """No limit sets no clock; a late one is put back."""
    with TimeLimit(minutes) as limit, StopSignal() as stop:
        assert (signal.getitimer(signal.ITIMER_REAL)[0] > 0) == (minutes is not None)
    assert stop.received is None
    assert not limit.is_up
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
