import os
import time
from pathlib import Path

import pytest

from benchmarks.gpu.process import run_limited
from rsa_pretrain.plumbing.stop_signal import StopSignal

# A child that ignores SIGTERM and outlives its parent unless the whole group is killed.
STUBBORN = "trap '' TERM; sh -c 'trap \"\" TERM; echo $$; exec sleep 60' & wait"


def run(words: str, seconds: float, folder: Path, stop: StopSignal | None = None) -> object:
    """Run a shell's words; the log is in the folder."""
    command = ["sh", "-c", words]
    environment = {"PATH": os.environ["PATH"]}
    return run_limited(command, folder, folder / "log", seconds, stop or StopSignal(), environment)


def has_ended(pid: int) -> bool:
    """Return whether a process ends within ten seconds; a signal takes a moment to arrive."""
    status = Path(f"/proc/{pid}/status")
    for _ in range(200):
        try:
            if "\nState:\tZ" in status.read_text():
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.05)
    return False


def test_a_command_ends_by_itself(tmp_path: Path) -> None:
    """Its exit code and all its output are kept; it has the stated variables alone."""
    assert run("echo out; echo err >&2; echo [$HOME]; exit 3", 60, tmp_path) == ("ended", 3)
    assert (tmp_path / "log").read_text() == "out\nerr\n[]\n"


def test_what_a_command_leaves_running_is_ended(tmp_path: Path) -> None:
    """A loader whose program has crashed would hold the GPU's memory."""
    assert run("sleep 60 & echo $!", 60, tmp_path) == ("ended", 0)
    assert has_ended(int((tmp_path / "log").read_text()))


def test_the_limit_ends_a_command_with_its_children(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even those that ignore the request to stop."""
    monkeypatch.setattr("benchmarks.gpu.process._GRACE_SECONDS", 0.2)
    started = time.monotonic()
    assert run(STUBBORN, 0.5, tmp_path) == ("killed", None)
    assert time.monotonic() - started < 30
    assert has_ended(int((tmp_path / "log").read_text()))


def test_a_signal_ends_a_command(tmp_path: Path) -> None:
    """As its limit does."""
    with StopSignal() as stop:
        os.kill(os.getpid(), 15)
        assert run("sleep 60", 60, tmp_path, stop) == ("interrupted", None)
