"""Count, and let fail, the file system calls of a program, by a library preloaded into it."""

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from rsa_pretrain.plumbing.atomic_files import TEMPORARY_PREFIX
from rsa_pretrain.plumbing.errors import UserError

_SOURCE = Path(__file__).with_name("failing_calls.c")
_RANDOM_PARTS = re.compile(
    rf"{re.escape(TEMPORARY_PREFIX)}[\w-]+|\.tmp\w+|events\.out\.[\w.-]+|[0-9a-f]{{8,}}|\d+"
)


def build(folder: Path) -> Path:
    """Compile the library, which processes started with LD_PRELOAD naming it contain.

    Raises:
        UserError: If there is no C compiler, or it fails.
    """
    library = folder / "failing_calls.so"
    words = ["cc", "-O2", "-shared", "-fPIC", "-o", str(library), str(_SOURCE), "-ldl"]
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise UserError(
            "faults are injected by a small C library, but there is no compiler 'cc'; install one "
            "(Debian: gcc)"
        ) from None
    if done.returncode:
        raise UserError(f"cannot compile '{_SOURCE.name}': {done.stderr}")
    return library


@dataclass(frozen=True)
class Call:
    """A file system call of a program.

    Attributes:
        number: In order, from 1.
        what: Its name and, without what is random in it, its path.
    """

    number: int
    what: str


def injection(folder: Path, number: int = 0, error: int = 0) -> dict[str, str]:
    """Return the variables that let a call on files below ``folder / "out"`` fail.

    Args:
        folder: Receives a counter and a log of the calls.
        number: Number of the call, from 1; 0 only counts.
        error: errno; 0 kills the process at the call.
    """
    counter = folder / "calls.count"
    counter.write_bytes(bytes(8))
    return {
        "FAULT_FOLDER": str(folder / "out"),
        "FAULT_COUNTER": str(counter),
        "FAULT_LOG": str(folder / "calls.log"),
        "FAULT_AT": str(number),
        "FAULT_ERROR": str(error),
    }


def read_calls(folder: Path) -> list[Call]:
    """Return the calls logged below a folder."""
    log = folder / "calls.log"
    if not log.exists():
        return []
    calls = []
    for line in os.fsdecode(log.read_bytes()).splitlines():
        number, _, what = line.partition(" ")
        calls.append(Call(int(number), _RANDOM_PARTS.sub("*", what)))
    return calls
