"""Write files and folders atomically: complete under their final name, or not at all."""

import errno
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rsa_pretrain.plumbing.errors import UserError

TEMPORARY_PREFIX = ".partial-"

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_PROBE = bytes(2**20)
_RUST = re.compile(r"\(os error (\d+)\)")


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
    """Yield a temporary path beside ``path`` that replaces it if the block succeeds.

    The content is on disk before the rename, so a kill or power cut at any moment leaves
    either the previous file or the new one. On an exception nothing is left behind.

    Args:
        path: Final name; its parent folders are created.

    Yields:
        A path of the same suffix to write to.

    Raises:
        UserError: If a parent folder is a file.
        OSError: If the disk is full, whatever the block raises then; it names ``path``.
    """
    make_folder(path.parent)
    with _errors_named(path):
        handle, name = tempfile.mkstemp(path.suffix, TEMPORARY_PREFIX, dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        try:
            with _system_errors(temporary):
                yield temporary
            temporary.chmod(0o666 & ~_umask())
            _flush_to_disk(temporary)
            temporary.replace(path)
            _flush_to_disk(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside ``path`` that replaces it if the block succeeds.

    An existing folder at ``path`` is replaced.

    Args:
        path: Final name; its parent folders are created.

    Yields:
        An empty folder; the block writes plain files into it.

    Raises:
        UserError: If a parent folder is a file.
        OSError: If the disk is full, whatever the block raises then; it names ``path``.
    """
    make_folder(path.parent)
    with _errors_named(path):
        temporary = Path(tempfile.mkdtemp(prefix=TEMPORARY_PREFIX, dir=path.parent))
        try:
            with _system_errors(temporary / "probe"):
                yield temporary
            temporary.chmod(0o777 & ~_umask())
            for file in temporary.iterdir():
                _flush_to_disk(file)
            _flush_to_disk(temporary)
            if path.exists():
                replaced = Path(tempfile.mkdtemp(prefix=TEMPORARY_PREFIX, dir=path.parent))
                path.rename(replaced / path.name)
                temporary.rename(path)
                shutil.rmtree(replaced)
            else:
                temporary.rename(path)
            _flush_to_disk(path.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


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
    temporary = link.with_name(f"{TEMPORARY_PREFIX}{link.name}-{os.getpid()}")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target_name)
    if link.is_dir() and not link.is_symlink():
        shutil.rmtree(link)
    temporary.replace(link)
    _flush_to_disk(link.parent)


def remove_leftovers(folder: Path) -> None:
    """Delete the half-written files that a killed process left directly in ``folder``."""
    for leftover in folder.glob(f"{TEMPORARY_PREFIX}*"):
        if leftover.is_dir() and not leftover.is_symlink():
            shutil.rmtree(leftover)
        else:
            leftover.unlink()


@contextmanager
def _errors_named(path: Path) -> Iterator[None]:
    """Name ``path`` in the system's errors about its temporary file and about a full disk."""
    try:
        yield
    except OSError as error:
        of_temporary = TEMPORARY_PREFIX in str(error.filename)
        if of_temporary or (error.filename is None and error.errno in _FULL):
            raise OSError(error.errno, error.strerror, str(path)) from None
        raise


@contextmanager
def _system_errors(probe: Path) -> Iterator[None]:
    """Raise the system's error if the block fails for want of space.

    Libraries report that in errors of many kinds: Rust's state the system's, of others the disk is
    asked.

    Args:
        probe: A file on the same disk that may be written to, and is removed afterwards.
    """
    try:
        yield
    except (OSError, UserError):
        raise
    except Exception as error:
        stated = _RUST.search(str(error))
        if stated is not None:
            raise OSError(int(stated[1]), os.strerror(int(stated[1]))) from None
        with probe.open("ab") as file:
            file.write(_PROBE)
        raise


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
