"""Let one command at a time work on a file, with all its processes.

The lock is the kernel's (flock): it ends with the last process that holds it, however that dies.
"""

import fcntl
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path

from rsa_pretrain.plumbing.distributed import is_main, min_over_ranks, wait_for_all

_POLL_SECONDS = 0.5
_log = logging.getLogger(__name__)


@contextmanager
def locked_file(path: Path) -> Iterator[FileIO]:
    """Open a file that no other command works on meanwhile; wait while one does.

    The processes of a group call this together, and each of them holds the lock.

    Args:
        path: The file; it is created if it is missing.

    Yields:
        The file, as ``open_unbuffered`` opens it.
    """
    file = _take(path)
    if file is None:
        _log.info("waiting for another command, which is writing '%s'", path)
    while file is None:
        time.sleep(_POLL_SECONDS)
        file = _take(path)
    with file:
        # Shared, so that a process which outlives the main one still keeps other commands away.
        fcntl.flock(file, fcntl.LOCK_SH)
        wait_for_all()
        yield file


def open_unbuffered(path: Path) -> FileIO:
    """Open a file to read and write, without a buffer; create it if it is missing."""
    return FileIO(path, "r+", opener=lambda name, flags: os.open(name, flags | os.O_CREAT, 0o666))


def lock_alone(file: FileIO, path: Path) -> bool:
    """Lock an open file for this process alone.

    Returns:
        False if another process has it, or if the file at ``path`` is no longer this one.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except (BlockingIOError, FileNotFoundError):
        return False


def _take(path: Path) -> FileIO | None:
    """Open a file in all processes if the main one can lock it."""
    file = open_unbuffered(path)
    if min_over_ranks(int(lock_alone(file, path) if is_main() else True)):
        return file
    file.close()
    return None
