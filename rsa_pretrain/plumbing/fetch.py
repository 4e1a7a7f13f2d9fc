"""Download, check and unpack published archives; only complete ones get their final name."""

import gzip
import os
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from rsa_pretrain.plumbing.atomic_files import scratch_beside
from rsa_pretrain.plumbing.download import Checksum, download, downloads_into
from rsa_pretrain.plumbing.errors import UserError

_CHUNK_BYTES = 2**20
_ARCHIVE_NAMES = (".zip", ".tar", ".tar.gz", ".tgz")
_DAMAGED = (tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, EOFError)


@dataclass(frozen=True)
class Archive:
    """A published tar or zip file."""

    url: str
    md5: str
    """MD5 of the complete file, in hexadecimal."""
    folder: str
    """The folder that it unpacks to."""


@dataclass(frozen=True)
class BundledFile:
    """One published file of several: an archive, a file compressed by gzip, or any other."""

    url: str
    md5: str
    """MD5 of the file as published, in hexadecimal."""
    inner: str = ""
    """The one archive inside this one that is unpacked in its place."""
    into: str = ""
    """Folder of an earlier archive that this one is unpacked into; empty: the bundle's."""

    @property
    def name(self) -> str:
        """Name of the file."""
        return self.url.rpartition("/")[2]


@dataclass(frozen=True)
class Bundle:
    """Published files that make up one folder, which is named here and not by them."""

    folder: str
    files: tuple[BundledFile, ...]
    inside: str = ""
    """Folder that all archives have, which itself becomes the folder; empty: what they have."""


def fetch(source: Archive | Bundle, root: Path, url: str | None = None) -> None:
    """Download and unpack published files to ``root/FOLDER``, which appears only when complete.

    Does nothing if that folder exists. A file grows as ``NAME.part``, gets its name once its
    MD5 matches, and archives are kept: that of an ``Archive`` in ``root``, those of a ``Bundle`` in
    ``root/FOLDER.downloads``. Rerunning resumes a download and reuses existing files.

    Args:
        source: What to fetch.
        root: Folder to fetch it into; created if missing.
        url: Address to use instead of the published one; the MD5 stays the same. For a bundle, that
            of the folder of all its files.

    Raises:
        UserError: If the server, the connection, the content or the disk fails.
    """
    folder = root / source.folder
    if folder.exists():
        return
    with downloads_into(root):
        if folder.exists():
            return
        if isinstance(source, Bundle):
            _fetch_bundle(source, folder, url)
        else:
            path = root / source.url.rpartition("/")[2]
            download(url or source.url, path, Checksum("md5", source.md5))
            _unpack(path, folder)


def _fetch_bundle(bundle: Bundle, folder: Path, url: str | None) -> None:
    if url is not None and not url.endswith("/"):
        names = ", ".join(file.name for file in bundle.files)
        raise UserError(
            f"--url should be the address of a folder, ending in /, that has {names}; found '{url}'"
        )
    downloads = folder.with_name(f"{folder.name}.downloads")
    downloads.mkdir(exist_ok=True)
    for file in bundle.files:
        place = file.url if url is None else url + file.name
        download(place, downloads / file.name, Checksum("md5", file.md5))
    with _appearing_whole(folder, bundle.inside) as temporary:
        temporary.mkdir()
        packed = [file for file in bundle.files if file.name.endswith((*_ARCHIVE_NAMES, ".gz"))]
        for file in packed:
            _unpack_into(downloads / file.name, temporary / file.into, file.inner)
        plain = [file.name for file in bundle.files if file not in packed]
        for name in plain:
            shutil.copyfile(downloads / name, temporary / name)
        if not (temporary / bundle.inside).is_dir():
            raise UserError(f"the archives in '{downloads}' contain no folder '{bundle.inside}'")
    with suppress(OSError):  # the set is complete, whatever else is among the downloads
        for name in plain:
            (downloads / name).unlink()
        downloads.rmdir()


@contextmanager
def _appearing_whole(folder: Path, inside: str = "") -> Iterator[Path]:
    """Yield the path of a folder to be made; it, or the one inside, gets the final name."""
    with scratch_beside(folder) as scratch:
        temporary = scratch / folder.name
        yield temporary
        os.sync()  # the files must be on disk before the folder gets its final name
        (temporary / inside).rename(folder)


def _unpack(path: Path, folder: Path) -> None:
    with _appearing_whole(folder, folder.name) as temporary:
        _unpack_into(path, temporary)
        if not (temporary / folder.name).is_dir():
            raise UserError(f"'{path}' contains no folder '{folder.name}'")


def _unpack_into(path: Path, folder: Path, inner: str = "") -> None:
    """Unpack an archive or, if one is named, the archive inside it; or a file that gzip packed."""
    try:
        if path.name.endswith(".gz") and not path.name.endswith(_ARCHIVE_NAMES):
            _decompress(path, folder / path.stem)
            return
        _extract(path, folder)
        if not inner:
            return
        if not (folder / inner).is_file():
            raise UserError(f"'{path}' contains no '{inner}'")
        _extract(folder / inner, folder)
        shutil.rmtree(folder / inner.partition("/")[0])
    except _DAMAGED as error:
        raise UserError(f"cannot unpack '{path}': {error}") from None


def _decompress(path: Path, target: Path) -> None:
    from rsa_pretrain.plumbing.progress import progress_bar

    with (
        gzip.open(path) as packed,
        target.open("wb") as file,
        progress_bar(None, f"unpacking {path.name}", "B") as bar,
    ):
        while chunk := packed.read(_CHUNK_BYTES):
            file.write(chunk)
            bar.update(len(chunk))


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
