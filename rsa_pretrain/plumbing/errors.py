"""Define the exception for a user's mistake, and advice for failures of the disk."""

import errno

DISK_FAILURES = {
    errno.ENOSPC: "free some space and rerun the command",
    errno.EDQUOT: "free some of the quota and rerun the command",
    errno.EROFS: "write elsewhere, or rerun the command once it can be written to",
    errno.EFBIG: "raise ulimit -f, or write to a file system that takes such a file",
    errno.EIO: "the disk or the connection to it fails; rerun the command once it works",
}
"""Advice by ``errno``."""


class UserError(ValueError):
    """Input that cannot be used: what was found, what was expected, what to do.

    Command lines print it as one ``error: …`` line and exit with code 2; any other
    exception is a defect of the toolkit and keeps its traceback.
    """
