"""Commands run side by side, their output kept, and a signal passed on."""

import os
import signal
import sys
import threading
from pathlib import Path

import pytest

from rsa_eval.campaigns.transfer.processes import run_in_processes

pytestmark = pytest.mark.process


def _python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_output_and_exit_codes(tmp_path: Path) -> None:
    """Each command has its own log; another's failure does not stop it."""
    commands = {"a": _python("print('done')"), "b": _python("raise SystemExit(2)")}
    commands["c"] = _python("import os; print(os.environ['OMP_NUM_THREADS'])")
    codes, stopped = run_in_processes(commands, 2, tmp_path / "logs")
    assert (codes, stopped) == ({"a": 0, "b": 2, "c": 0}, 0)
    assert (tmp_path / "logs" / "a.log").read_text() == "done\n"
    assert int((tmp_path / "logs" / "c.log").read_text()) >= 1


def test_a_signal_stops_what_runs_and_starts_nothing_more(tmp_path: Path) -> None:
    """The running command gets it, the waiting one never starts."""
    code = "import time; open('started', 'w').close(); time.sleep(60)"
    commands = {"a": _python(f"import os; os.chdir({str(tmp_path)!r}); {code}")}
    commands["b"] = _python("print('never')")

    def interrupt() -> None:
        while not (tmp_path / "started").exists():
            threading.Event().wait(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=interrupt, daemon=True).start()
    codes, stopped = run_in_processes(commands, 1, tmp_path / "logs")
    assert codes == {"a": -signal.SIGTERM}
    assert stopped == 128 + signal.SIGTERM
    assert not (tmp_path / "logs" / "b.log").exists()
