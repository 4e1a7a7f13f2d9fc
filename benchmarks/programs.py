"""Run programs in processes that start with torch and this toolkit imported.

A fresh interpreter imports for seconds what a short program then uses for a moment. Each process
here is forked from one server that has imported it, and otherwise behaves like ``python WORDS``:
its own arguments, environment, folder, session, output, signals and exit code.
"""

import contextlib
import multiprocessing
import multiprocessing.forkserver
import os
import runpy
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

_ROOT = Path(__file__).parents[1]
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

Surroundings = Callable[[], AbstractContextManager[object]]


def start_server() -> None:
    """Start the server, with the environment as it is now; without effect if it runs."""
    # The server imports what its folder holds, which may be a changed copy meanwhile.
    with contextlib.chdir(_ROOT):
        multiprocessing.forkserver.ensure_running()


class Program:
    """A running ``python WORDS``.

    Args:
        words: ``-m MODULE …``, ``-c CODE …`` or ``FILE …``.
        environment: Variables that differ from this process's.
        output: Prefix of the paths of its standard output and error.
        folder: Where it runs; None is this process's.
        surroundings: Makes a context that the program runs in; a function that can be pickled.
    """

    def __init__(
        self,
        words: list[str],
        environment: Mapping[str, str],
        output: Path,
        folder: Path | None = None,
        surroundings: Surroundings = nullcontext,
    ) -> None:
        self.words = words
        self._output = [output.with_name(output.name + suffix) for suffix in (".out", ".err")]
        for path in self._output:
            path.touch()
        everything = os.environ | {"OMP_NUM_THREADS": "1"} | environment
        task = (words, dict(everything), folder or Path.cwd(), self._output, surroundings)
        self._process = _CONTEXT.Process(target=_become, args=task)
        self._process.start()

    @property
    def pid(self) -> int:
        """The process's number, which is also its session's."""
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


def environments_of_ranks(count: int) -> Iterator[dict[str, str]]:
    """Yield the variables that torchrun would give to each process of one job on this machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for rank in range(count):
        yield {
            "WORLD_SIZE": str(count),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
        }


def _become(
    words: list[str],
    environment: dict[str, str],
    folder: Path,
    output: list[Path],
    surroundings: Surroundings,
) -> None:
    os.setsid()
    # An interpreter starts loader processes in the system's usual way, not by a server.
    multiprocessing.set_start_method(None, force=True)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    for number, path in enumerate(output, 1):
        file = os.open(path, os.O_WRONLY | os.O_APPEND)
        os.dup2(file, number)
        os.close(file)
    with surroundings():
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
