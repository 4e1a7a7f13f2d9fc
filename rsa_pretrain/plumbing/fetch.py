"""Download, check and unpack published archives; only complete ones get their final name."""

import fcntl
import hashlib
import logging
import os
import shutil
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import IO
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from rsa_pretrain.plumbing.atomic_files import TEMPORARY_PREFIX
from rsa_pretrain.plumbing.errors import UserError

_TIMEOUT_SECONDS = 60
_CHUNK_BYTES = 2**20
_NOTHING_BEYOND = 416  # the status if a file ends before the first requested byte

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Archive:
    """A published tar or zip file."""

    url: str
    md5: str
    """MD5 of the complete file, in hexadecimal."""
    folder: str
    """The folder that it unpacks to."""


def fetch(archive: Archive, root: Path, url: str | None = None) -> None:
    """Download an archive and unpack it to ``root/FOLDER``, which appears only when complete.

    Does nothing if that folder exists. The archive grows as ``NAME.part``, gets its name once its
    MD5 matches, and is kept. Rerunning resumes a download and reuses an existing archive.

    Args:
        archive: What to fetch.
        root: Folder to fetch it into; created if missing.
        url: Address to use instead of the published one; the MD5 stays the same.

    Raises:
        UserError: If the server, the connection, the content or the disk fails.
    """
    folder = root / archive.folder
    if folder.exists():
        return
    path = root / archive.url.rpartition("/")[2]
    try:
        root.mkdir(parents=True, exist_ok=True)
        with (root / ".download.lock").open("ab") as lock:
            _wait_for(lock, root)
            if not folder.exists():
                _download(archive, url or archive.url, path)
                _unpack(path, folder)
    except OSError as error:
        raise UserError(
            f"cannot download into '{root}': {error.strerror or error}; fix that and rerun the "
            "command to resume"
        ) from None


def _wait_for(lock: IO[bytes], root: Path) -> None:
    """Let one process at a time download into a folder."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        _log.info("waiting for another download into '%s'", root)
        fcntl.flock(lock, fcntl.LOCK_EX)


def _download(archive: Archive, url: str, path: Path) -> None:
    """Download the archive, or check an existing one."""
    if path.exists():
        found = _md5(path)
        if found != archive.md5:
            raise UserError(
                f"'{path}' is not the published archive (its MD5 is {found}, expected "
                f"{archive.md5}); move it away and rerun the command"
            )
        return
    part = path.with_name(f"{path.name}.part")
    _receive(url, part)
    found = _md5(part)
    if found != archive.md5:
        part.unlink()
        raise UserError(
            f"{url} gave a file whose MD5 is {found}, expected {archive.md5}; it is removed. Rerun "
            "the command to download it from the beginning, or name a mirror with --url"
        )
    part.rename(path)


def _receive(url: str, part: Path) -> None:
    """Append to a partial file the rest of the one at an address."""
    from rsa_pretrain.plumbing.progress import progress_bar

    done = part.stat().st_size if part.exists() else 0
    response = _request(url, done)
    if response is None:
        return
    with response:
        if response.status != 206:  # the server sends the whole file, ignoring the range
            done = 0
        total = None if response.length is None else done + response.length
        if done:
            _log.info("resuming '%s' at %s bytes", part, f"{done:,}")
        with (
            part.open("ab" if done else "wb") as file,
            progress_bar(total, part.stem, "B", done) as bar,
        ):
            for chunk in _chunks(response, part):
                file.write(chunk)
                bar.update(len(chunk))
    size = part.stat().st_size
    if total is not None and size < total:
        raise _cut(part, f"after {size:,} of {total:,} bytes")


def _request(url: str, done: int) -> HTTPResponse | None:
    """Request a file from a byte offset; None if it ends there."""
    if not url.startswith(("http://", "https://")):
        raise UserError(f"expected an address starting with http:// or https://, found '{url}'")
    headers = {"User-Agent": "rsa-pretrain"} | ({"Range": f"bytes={done}-"} if done else {})
    try:
        response: HTTPResponse = urlopen(Request(url, headers=headers), timeout=_TIMEOUT_SECONDS)
    except HTTPError as error:
        if error.code == _NOTHING_BEYOND and done:
            return None
        raise UserError(
            f"the server answers {error.code} {error.reason} to {url}; name a mirror with --url"
        ) from None
    except (OSError, HTTPException, ValueError) as error:
        raise UserError(
            f"cannot reach {url} ({getattr(error, 'reason', error)}); rerun the command, or name a "
            "mirror with --url"
        ) from None
    return response


def _chunks(response: HTTPResponse, part: Path) -> Iterator[bytes]:
    try:
        while chunk := response.read(_CHUNK_BYTES):
            yield chunk
    except (OSError, HTTPException) as error:
        raise _cut(part, f"({error})") from None


def _cut(part: Path, how: str) -> UserError:
    return UserError(f"the connection was cut {how}; rerun the command to resume '{part}'")


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False))
    return digest.hexdigest()


def _unpack(path: Path, folder: Path) -> None:
    temporary = folder.with_name(f"{TEMPORARY_PREFIX}{folder.name}")
    shutil.rmtree(temporary, ignore_errors=True)  # left by a killed process
    try:
        try:
            _extract(path, temporary)
        except (tarfile.TarError, zipfile.BadZipFile, EOFError) as error:
            raise UserError(f"cannot unpack '{path}': {error}") from None
        if not (temporary / folder.name).is_dir():
            raise UserError(f"'{path}' contains no folder '{folder.name}'")
        os.sync()  # the files must be on disk before the folder gets its final name
        (temporary / folder.name).rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _extract(path: Path, folder: Path) -> None:
    """Extract every file; none can land outside the folder."""
    from rsa_pretrain.plumbing.progress import progress_bar

    label = f"unpacking {path.name}"
    if not hasattr(tarfile, "data_filter"):
        raise UserError(f"unpacking safely needs Python 3.11.4 or newer; unpack '{path}' by hand")
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as zipped:
            members = zipped.infolist()
            with progress_bar(len(members), label, "file") as bar:
                for entry in members:
                    zipped.extract(entry, folder)
                    bar.update()
    else:
        with tarfile.open(path) as tar, progress_bar(None, label, "file") as bar:
            for member in tar:
                tar.extract(member, folder, filter="data")
                bar.update()
