"""The command ``rsa-eval serve`` from its start to its end."""

import os
import signal
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rsa_eval.__main__ import main
from rsa_eval.serve.app import App
from rsa_eval.serve.server import ReportServer


@pytest.mark.process
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["Ctrl-C", "SIGTERM"]
)
def test_it_serves_until_a_signal(python: Any, tmp_path: Path, number: int, code: int) -> None:
    """One line with the address; the end is quiet, also while a browser is connected."""
    process = python.start("-m", "rsa_eval", "serve", tmp_path, "--port", "0")
    end = time.monotonic() + 60
    while "\n" not in process.stdout and time.monotonic() < end:
        time.sleep(0.05)
    line = process.stdout
    assert line.startswith("serving: http://127.0.0.1:")
    address = line.split()[1]
    with urllib.request.urlopen(address, timeout=20) as reply:
        assert b"<h1>Results</h1>" in reply.read()

        os.kill(process.pid, number)
        assert process.wait(20) == code
    assert (process.stdout, process.stderr) == (line, "")


def test_mistakes_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An absent path, a port that is none, and one that is in use."""
    with ReportServer(App([tmp_path]), 0) as taken:
        for words, expected in (
            ([str(tmp_path / "absent")], "does not exist"),
            ([str(tmp_path), "--port", "x"], "expected a port from 0 to 65535, found 'x'"),
            ([str(tmp_path), "--port", "70000"], "found '70000'"),
            ([str(tmp_path), "--port", f"{taken.server_port}"], "is in use; choose another"),
        ):
            assert main(["serve", *words]) == 2
            captured = capsys.readouterr()
            assert captured.out == ""
            assert captured.err.startswith("error: ")
            assert captured.err.count("\n") == 1
            assert expected in captured.err


def test_the_help_shows_examples(capsys: pytest.CaptureFixture[str]) -> None:
    """With the default port, and how to reach a server's page."""
    with pytest.raises(SystemExit, match="0"):
        main(["serve", "--help"])
    text = capsys.readouterr().out
    assert "rsa-eval serve runs\n" in text
    assert "(default: 8765)" in text
    assert "ssh -L 8765:127.0.0.1:8765" in text


def test_looks_are_no_more_than_a_tenth_of_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write_log: Callable[..., None]
) -> None:
    """A tree that takes a second to read is read every ten seconds, however often a page asks."""
    from rsa_eval.serve import app as app_module

    monkeypatch.setattr(app_module, "_REST", 9.0)
    now = [0.0]
    monkeypatch.setattr(app_module.time, "monotonic", lambda: now[0])
    write_log(tmp_path / "run")
    app = App([tmp_path])
    looks: list[float] = []
    collect = app._watch.collect

    def slow() -> Any:
        looks.append(now[0])
        now[0] += 1.0
        return collect()

    monkeypatch.setattr(app._watch, "collect", slow)
    while now[0] < 25:
        app.answer("/state")
        now[0] += 0.5
    assert looks == [0.0, 10.0, 20.0]
