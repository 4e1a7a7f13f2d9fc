"""Run programs in processes that start with torch and this toolkit imported.

A fresh interpreter imports for seconds what a test then uses for a moment. Each process here is
forked from one server that has imported it, and otherwise behaves like ``python WORDS``: its own
arguments, environment, folder, output, signals and exit code. Where the test's ResNet-18 is narrow,
so is the program's. What a test says of start-up or of the interpreter's end needs an interpreter.
"""

import contextlib
import itertools
import multiprocessing
import multiprocessing.forkserver
import os
import runpy
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from narrow import is_narrow, narrow_resnets

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    [
        "detection.run",
        "rsa_eval.evaluators",
        "rsa_eval.evaluators.linear.probe",
        "rsa_eval.report.figures",
        "rsa_pretrain.training.trainer",
        "sklearn.datasets",  # the digits, which most runs train on
    ]
)


class Program:
    """A running ``python WORDS``.

    Args:
        words: ``-m MODULE …``, ``-c CODE …`` or ``FILE …``.
        environment: Variables that differ from this process's.
        output: Prefix of the paths of its standard output and error.
    """

    def __init__(self, words: list[str], environment: Mapping[str, str], output: Path) -> None:
        self.words = words
        self._output = [output.with_suffix(suffix) for suffix in (".out", ".err")]
        everything = os.environ | {"OMP_NUM_THREADS": "1"} | environment
        task = (words, dict(everything), os.getcwd(), self._output, is_narrow())
        self._process = _CONTEXT.Process(target=_become, args=task)
        self._process.start()

    @property
    def pid(self) -> int:
        """The process's number."""
        assert self._process.pid is not None
        return self._process.pid

    def poll(self) -> int | None:
        """Return the exit code, minus the signal that killed it, None while it runs."""
        return self._process.exitcode

    @property
    def stdout(self) -> str:
        """Standard output so far."""
        return self._output[0].read_text()

    @property
    def stderr(self) -> str:
        """Standard error so far."""
        return self._output[1].read_text()

    def kill(self) -> None:
        """End it with SIGKILL."""
        self._process.kill()
        self._process.join()

    def wait(self, timeout: float = 120) -> int:
        """Wait for its end; return the exit code.

        Raises:
            subprocess.TimeoutExpired: If it ran on for ``timeout`` seconds; it is killed.
        """
        self._process.join(timeout)
        if (code := self.poll()) is None:
            self.kill()
            raise subprocess.TimeoutExpired(self.words, timeout, self.stdout, self.stderr)
        return code


class Python:
    """Starts programs; their words follow ``python``.

    Args:
        folder: Where their output is kept.
    """

    def __init__(self, folder: Path) -> None:
        self._names = (folder / str(number) for number in itertools.count())
        # The server imports what its folder holds, which may be a changed copy during a test.
        with contextlib.chdir(Path(__file__).parents[2]):
            multiprocessing.forkserver.ensure_running()

    def start(self, *words: object) -> Program:
        """Start a program."""
        return Program([*map(str, words)], {}, next(self._names))

    def run(self, *words: object, timeout: float = 120) -> "subprocess.CompletedProcess[str]":
        """Run a program to its end."""
        program = self.start(*words)
        code = program.wait(timeout)
        return subprocess.CompletedProcess(program.words, code, program.stdout, program.stderr)

    def start_two(self, *words: object) -> list[Program]:
        """Start a program as processes 0 and 1 of one job, which share their output."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        ranks = [{"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(2)]
        output = next(self._names)
        return [Program([*map(str, words)], common | rank, output) for rank in ranks]

    def run_two(self, *words: object, timeout: float = 120) -> "subprocess.CompletedProcess[str]":
        """Run a program in two processes; once one has failed, the other has five seconds."""
        pair = self.start_two(*words)
        failed, end = False, time.monotonic() + timeout
        while None in (codes := [one.poll() for one in pair]) and time.monotonic() < end:
            if any(codes) and not failed:
                failed, end = True, min(end, time.monotonic() + 5)
            time.sleep(0.01)
        for one in pair:
            one.kill()
        output = (pair[0].stdout, pair[0].stderr)
        if None in codes and not failed:
            raise subprocess.TimeoutExpired(pair[0].words, timeout, *output)
        return subprocess.CompletedProcess(pair[0].words, next(filter(None, codes), 0), *output)


def _become(
    words: list[str],
    environment: dict[str, str],
    folder: str,
    output: list[Path],
    narrow: bool,
) -> None:
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    for number, path in enumerate(output, 1):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, number)
        os.close(file)
    with narrow_resnets(narrow):
        _run(words)


def _run(words: list[str]) -> None:
    match words:
        case ["-m", module, *_]:
            sys.argv = words[1:]
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        case ["-c", code, *rest]:
            sys.argv = ["-c", *rest]
            exec(compile(code, "<string>", "exec"), {"__name__": "__main__"})
        case [file, *_]:
            sys.argv = words
            runpy.run_path(file, run_name="__main__")
