"""Write files and folders atomically: complete under their final name, or not at all."""

import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import count
from pathlib import Path

from rsa_pretrain.plumbing.errors import DISK_FAILURES, UserError

TEMPORARY_PREFIX = ".partial-"
_REPLACED = ".replaced"


def make_folder(folder: Path) -> None:
    """Create a folder and its parents, those of them that are missing.

    Raises:
        UserError: If one of them is a file.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        taken = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
        raise UserError(
            f"'{taken}' is a file where a folder is to be; choose another place"
        ) from None


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path whose file replaces ``path`` if the block succeeds.

    The content is on disk before the rename, so a kill or power cut at any moment leaves
    either the previous file or the new one. On an exception nothing is left behind; what a killed
    process has left is removed with the next write into the same folder.

    Args:
        path: Final name; its parent folders are created.

    Yields:
        The same name in a new folder beside ``path``; the block creates the file.

    Raises:
        UserError: If a parent folder is a file.
    """
    with scratch_beside(path) as scratch:
        temporary = scratch / path.name
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        move_into_place(temporary, path)


def move_into_place(temporary: Path, path: Path) -> None:
    """Flush a file to disk, and let it replace ``path``, in the same folder."""
    _flush_to_disk(temporary)
    temporary.replace(path)
    _flush_to_disk(path.parent)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder that replaces ``path`` if the block succeeds.

    An existing folder at ``path`` is replaced.

    Args:
        path: Final name; its parent folders are created.

    Yields:
        An empty folder; the block writes plain files into it.

    Raises:
        UserError: If a parent folder is a file.
    """
    with scratch_beside(path) as scratch:
        temporary = scratch / path.name
        temporary.mkdir()
        yield temporary
        for file in temporary.iterdir():
            _flush_to_disk(file)
        _flush_to_disk(temporary)
        for number in count():
            with suppress(FileNotFoundError):
                path.rename(scratch / f"{_REPLACED}-{number}")
            with suppress(FileExistsError):
                _rename_folder(temporary, path)
                break
        _flush_to_disk(path.parent)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8 to ``path``, atomically.

    Bytes of a file name that are no UTF-8, which Python keeps as surrogates, become escapes.
    """
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_bytes(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path``, atomically."""
    with atomic_file(path) as temporary:
        temporary.write_bytes(content)


def point_link(link: Path, target_name: str) -> None:
    """Make ``link`` a symbolic link to ``target_name`` in its own folder, atomically.

    A real folder at ``link``, left by a copy that followed links, is replaced.
    """
    with scratch_beside(link) as scratch:
        temporary = scratch / link.name
        temporary.symlink_to(target_name)
        if link.is_dir() and not link.is_symlink():
            link.rename(scratch / _REPLACED)
        temporary.replace(link)
        _flush_to_disk(link.parent)


def remove_leftovers(folder: Path) -> None:
    """Delete what killed processes have left half-written directly in ``folder``.

    What is locked, or belongs to another user, stays.
    """
    for leftover in folder.glob(f"{TEMPORARY_PREFIX}*"):
        with suppress(OSError), _locked(leftover) as is_locked:
            if is_locked and leftover.is_dir():
                shutil.rmtree(leftover)
            elif is_locked:
                leftover.unlink()


def remove_folder(folder: Path) -> None:
    """Delete a folder, of which a kill at any moment leaves nothing under its name, or all."""
    doomed = folder.with_name(f"{TEMPORARY_PREFIX}{folder.name}")
    shutil.rmtree(doomed, ignore_errors=True)
    folder.rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)  # what is left is a leftover


@contextmanager
def scratch_beside(path: Path) -> Iterator[Path]:
    """Yield an empty folder beside ``path``, locked so that others do not take it for a leftover.

    What killed processes have left there is removed first.
    """
    make_folder(path.parent)
    remove_leftovers(path.parent)
    with _errors_naming(path), ExitStack() as stack:
        while True:
            scratch = Path(tempfile.mkdtemp(prefix=TEMPORARY_PREFIX, dir=path.parent))
            stack.callback(shutil.rmtree, scratch, ignore_errors=True)
            # Another process may be removing it, as not locked yet.
            with suppress(FileNotFoundError, BlockingIOError):
                stack.enter_context(_locked(scratch))
                if scratch.exists():
                    break
        yield scratch


@contextmanager
def _errors_naming(path: Path) -> Iterator[None]:
    """Name ``path`` in the system's errors of writes, which name no file or a temporary one."""
    try:
        yield
    except OSError as error:
        if error.errno in DISK_FAILURES or TEMPORARY_PREFIX in str(error.filename):
            error.filename = str(path)
        raise


@contextmanager
def _locked(path: Path) -> Iterator[bool]:
    """Lock a file or folder against other processes, or yield False where no file can be locked.

    Raises:
        BlockingIOError: If another process has locked it.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise
        except OSError:  # some network file systems have no locks
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)


def _rename_folder(folder: Path, path: Path) -> None:
    """Rename a folder.

    Raises:
        FileExistsError: If another process has put a folder there meanwhile.
    """
    try:
        folder.rename(path)
    except OSError as error:
        if error.errno != errno.ENOTEMPTY:
            raise
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from None


def _flush_to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
