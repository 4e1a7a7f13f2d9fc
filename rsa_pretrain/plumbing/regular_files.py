"""Open regular files alone: opening a pipe waits for a writer, and a device may never end."""

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

_NEITHER = "is a pipe or a device, expected a regular file"


def open_regular(path: Path) -> BinaryIO:
    """Open a file for reading its bytes.

    Raises:
        OSError: As ``check_regular``, or if it may not be read.
    """
    check_regular(path)
    return path.open("rb")


def check_regular(path: Path) -> os.stat_result:
    """Refuse what is no regular file; a pipe is not opened.

    Returns:
        Its status.

    Raises:
        OSError: If it is absent, a loop of links, a folder, a pipe or a device.
    """
    status = path.stat()
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, _NEITHER, str(path))
    return status


def is_there(path: Path) -> bool:
    """Return whether a path is anything at all, such as a link to nothing, that a reader refuses.

    ``Path.exists`` takes a broken link for nothing, and its file for one never written.
    """
    return os.path.lexists(path)
