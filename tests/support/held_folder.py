"""Hold a run folder's lock in another process, as a run there does."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rsa_pretrain.plumbing.folder_lock import LOCK_FILE

_HOLD = """
import fcntl, sys
with open(sys.argv[1], "ab") as file:
    fcntl.lockf(file, fcntl.LOCK_EX)
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def held_folder(folder: Path) -> Iterator[None]:
    """Hold the lock during the block; the folder is created."""
    folder.mkdir()
    command = [sys.executable, "-c", _HOLD, str(folder / LOCK_FILE)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        yield
        process.kill()
