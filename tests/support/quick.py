"""Keep tests without the mark ``process`` quick: they start no interpreter and no browser."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest

# Importing torch takes seconds. git, which records name the commit by, and forks do not.
_SLOW_PROGRAMS = ("python", "bash", "torchrun", "chromedriver")


@contextmanager
def without_interpreters() -> Iterator[None]:
    """Let the start of a Python, a script or a browser be an error."""
    start, open_program = BaseProcess.start, subprocess.Popen.__init__

    def guarded_start(process: Any) -> None:
        if process._start_method in ("spawn", "forkserver"):
            raise RuntimeError("a test that starts an interpreter needs the mark 'process'")
        start(process)

    def guarded_open(process: Any, args: Any, *rest: Any, **options: Any) -> None:
        name = Path(str(args if isinstance(args, str | Path) else args[0])).name
        if name.startswith(_SLOW_PROGRAMS):
            raise RuntimeError(f"a test that starts {name} needs the mark 'process'")
        open_program(process, args, *rest, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BaseProcess, "start", guarded_start)
        patch.setattr(subprocess.Popen, "__init__", guarded_open)
        yield
