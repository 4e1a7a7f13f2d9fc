"""Run programs in processes that start with torch and this toolkit imported.

Where the test's ResNet-18 is narrow, so is the program's. What a test says of start-up or of the
interpreter's end needs an interpreter.
"""

import itertools
import subprocess
import time
from functools import partial
from pathlib import Path

from narrow import is_narrow, narrow_resnets

from benchmarks.programs import Program, environments_of_ranks, start_server


class Python:
    """Starts programs; their words follow ``python``.

    Args:
        folder: Where their output is kept.
    """

    def __init__(self, folder: Path) -> None:
        self._names = (folder / str(number) for number in itertools.count())
        start_server()

    def start(self, *words: object) -> Program:
        """Start a program."""
        return _start(words, {}, next(self._names))

    def run(self, *words: object, timeout: float = 120) -> "subprocess.CompletedProcess[str]":
        """Run a program to its end."""
        program = self.start(*words)
        code = program.wait(timeout)
        return subprocess.CompletedProcess(program.words, code, program.stdout, program.stderr)

    def start_two(self, *words: object) -> list[Program]:
        """Start a program as processes 0 and 1 of one job, which share their output."""
        output = next(self._names)
        return [_start(words, variables, output) for variables in environments_of_ranks(2)]

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


def _start(words: tuple[object, ...], environment: dict[str, str], output: Path) -> Program:
    surroundings = partial(narrow_resnets, is_narrow())
    return Program([*map(str, words)], environment, output, surroundings=surroundings)
