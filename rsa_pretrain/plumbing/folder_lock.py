"""Let one run at a time write to a folder."""

import fcntl
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from rsa_pretrain.plumbing.atomic_files import make_folder
from rsa_pretrain.plumbing.distributed import failing_together, is_main
from rsa_pretrain.plumbing.errors import UserError

LOCK_FILE = ".lock"


@contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Keep other runs out of a folder during the block.

    The system releases the lock of a killed process. On file systems without locks no run is kept
    out.

    Args:
        folder: Created if missing; receives an empty ``.lock``, which remains.

    Raises:
        UserError: If another run is in the folder; in all processes of this one.
    """
    with ExitStack() as stack:
        with failing_together():
            if is_main():
                stack.enter_context(_lock(folder))
        yield


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    make_folder(folder)
    with (folder / LOCK_FILE).open("ab") as file:
        try:
            # Unlike flock's, not inherited by loader processes, which may outlive a killed process.
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            raise UserError(
                f"another run is writing to '{folder}'; wait until it ends, or choose another "
                "output_dir"
            ) from None
        except OSError:  # of a file system without locks
            pass
        try:
            yield
        except BaseException:
            _remove_if_unused(folder)
            raise


def _remove_if_unused(folder: Path) -> None:
    """Delete a folder that has nothing but the lock, as of a run that was refused."""
    with suppress(OSError):  # of a folder that someone has removed, too
        if [path.name for path in folder.iterdir()] == [LOCK_FILE]:
            (folder / LOCK_FILE).unlink()
            folder.rmdir()
