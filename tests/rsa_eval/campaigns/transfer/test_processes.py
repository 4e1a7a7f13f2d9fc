"""Commands run side by side, their output kept, and a signal passed on."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from rsa_eval.campaigns.transfer.processes import run_in_processes
from rsa_pretrain.plumbing.device import usable_cores

pytestmark = pytest.mark.process


def _python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_output_and_exit_codes(tmp_path: Path) -> None:
    """Each command has its own log; another's failure does not stop it."""
    commands = {"a": _python("print('done')"), "b": _python("raise SystemExit(2)")}
    told: list[tuple[str, int | None]] = []
    codes, stopped = run_in_processes(
        commands, 2, tmp_path / "logs", tell=lambda name, code: told.append((name, code))
    )
    assert (codes, stopped) == ({"a": 0, "b": 2}, 0)
    assert told[:2] == [("a", None), ("b", None)]
    assert sorted(told[2:]) == [("a", 0), ("b", 2)]
    assert (tmp_path / "logs" / "a.log").read_text() == "done\n"


@pytest.mark.parametrize(("count", "shares"), [(3, 2), (1, 1)])
def test_cores_are_shared_by_what_runs_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int, shares: int
) -> None:
    """By two of three commands; a single one has them all. Ctrl-C does not reach them itself."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    code = "import os; print(os.environ['OMP_NUM_THREADS'], os.getsid(0) == os.getpid())"
    run_in_processes({str(n): _python(code) for n in range(count)}, 2, tmp_path)
    expected = f"{max(1, usable_cores() // shares)} True\n"
    assert [(tmp_path / f"{n}.log").read_text() for n in range(count)] == [expected] * count


def _signal_once_there(path: Path) -> None:
    def send() -> None:
        while not path.exists():
            threading.Event().wait(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=send, daemon=True).start()


def test_a_signal_stops_what_runs_and_starts_nothing_more(tmp_path: Path) -> None:
    """The running command gets it, the waiting one never starts."""
    code = "import time; open('started', 'w').close(); time.sleep(60)"
    commands = {"a": _python(f"import os; os.chdir({str(tmp_path)!r}); {code}")}
    commands["b"] = _python("print('never')")
    _signal_once_there(tmp_path / "started")
    codes, stopped = run_in_processes(commands, 1, tmp_path / "logs")
    assert codes == {"a": -signal.SIGTERM}
    assert stopped == 128 + signal.SIGTERM
    assert not (tmp_path / "logs" / "b.log").exists()


def test_a_second_signal_is_passed_on_too(tmp_path: Path) -> None:
    """It ends a command that only notes the first; this process outlives both."""
    code = f"""if True:
        import os, signal, time
        os.chdir({str(tmp_path)!r})
        def note(number, frame):
            signal.signal(number, signal.SIG_DFL)
            open('noted', 'w').close()
        signal.signal(signal.SIGTERM, note)
        open('started', 'w').close()
        time.sleep(60)"""
    for name in ("started", "noted"):
        _signal_once_there(tmp_path / name)
    before = signal.getsignal(signal.SIGTERM)
    codes, stopped = run_in_processes({"a": _python(code)}, 1, tmp_path / "logs")
    assert codes == {"a": -signal.SIGTERM}
    assert stopped == 128 + signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) == before


def test_an_error_leaves_no_process_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that cannot be started ends those that were."""
    started = []
    start = subprocess.Popen

    def note(*words: object, **options: object) -> object:
        started.append(start(*words, **options))
        return started[-1]

    monkeypatch.setattr(subprocess, "Popen", note)
    commands = {"a": _python("import time; time.sleep(60)"), "b": [str(tmp_path / "none")]}
    with pytest.raises(FileNotFoundError, match="none"):
        run_in_processes(commands, 2, tmp_path / "logs")
    assert [process.returncode for process in started] == [-signal.SIGTERM]


def test_a_budget_is_shared_by_all(tmp_path: Path) -> None:
    """Of three commands, two at a time, the third would start too late; each takes what is left."""
    code = "import sys, time; print(*sys.argv[1:]); time.sleep(2.5)"
    budget = 2 / 60
    commands = {name: _python(code) for name in "abc"}
    codes, stopped = run_in_processes(commands, 2, tmp_path, budget_minutes=budget)
    assert (codes, stopped) == ({"a": 0, "b": 0}, 128 + signal.SIGALRM)
    for name in codes:
        option, left = (tmp_path / f"{name}.log").read_text().split()
        assert option == "--budget-minutes"
        assert 0 < float(left) < budget


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere no signal tells of a parent's death")
def test_commands_stop_with_a_killed_parent(tmp_path: Path) -> None:
    """SIGKILL cannot be passed on; the system sends the command SIGTERM instead."""
    command = """if True:
        import os, time
        from rsa_pretrain.plumbing.command_line import run_command
        def work():
            print(os.getpid(), flush=True)
            time.sleep(900)
        run_command(work)"""
    parent = f"""if True:
        from pathlib import Path
        from rsa_eval.campaigns.transfer.processes import run_in_processes
        run_in_processes({{"a": {_python(command)!r}}}, 1, Path({str(tmp_path)!r}))"""
    log = tmp_path / "a.log"
    with subprocess.Popen(_python(parent)) as process:
        try:
            _wait_for(lambda: log.exists() and log.read_text().endswith("\n"))
        finally:
            process.kill()
    child = Path("/proc") / log.read_text().strip()
    _wait_for(lambda: not child.exists() or " Z " in (child / "stat").read_text())


def _wait_for(condition: Callable[[], bool], seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "not in time"
        time.sleep(0.05)
