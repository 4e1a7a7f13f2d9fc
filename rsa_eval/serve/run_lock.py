"""Tell whether a process holds a run folder's lock, without taking it."""

import fcntl
import os
import struct
import sys
from pathlib import Path

from rsa_pretrain.plumbing.folder_lock import LOCK_FILE

_FLOCK = "hhqqi"  # Linux's struct flock on 64 bits: type, whence, start, length, process


def is_locked(run_dir: Path) -> bool:
    """Return whether a process trains in a folder; False where the system does not tell."""
    if sys.platform != "linux":
        return False
    asked = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    try:
        # Closing a file ends this process's own locks of it, of which the page has none.
        with (run_dir / LOCK_FILE).open("rb") as file:
            answer = fcntl.fcntl(file, fcntl.F_GETLK, asked)
    except OSError:
        return False
    return bool(struct.unpack(_FLOCK, answer)[0] != fcntl.F_UNLCK)
