"""Read tar files strictly: a damaged one is an error, not the end of the archive.

Python's ``tarfile`` takes a damaged header for the end, stops at the end mark of the first of
several concatenated archives, and does not notice that the command behind a stream has failed.
"""

import bz2
import gzip
import lzma
import re
import signal
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, NamedTuple, Self

from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.regular_files import open_regular

_TAR_ERRORS = (OSError, tarfile.TarError, EOFError, ValueError, zlib.error, lzma.LZMAError)


class Compression(NamedTuple):
    """A compressed form of tar files.

    Attributes:
        name: Its name.
        magic: First bytes of such a file; a plain tar starts with the name of a file.
        command: Unpacks a file to standard output.
        open: Unpacks a stream; None if Python cannot.
    """

    name: str
    magic: re.Pattern[bytes]
    command: str
    open: Callable[[IO[bytes]], Any] | None


_COMPRESSIONS = (
    Compression(
        "gzip", re.compile(rb"\x1f\x8b"), "gzip -dc", lambda stream: gzip.GzipFile(fileobj=stream)
    ),
    Compression("bzip2", re.compile(rb"BZh[1-9]1AY&SY"), "bzip2 -dc", bz2.BZ2File),
    Compression("xz", re.compile(rb"\xfd7zXZ\x00"), "xz -dc", lzma.LZMAFile),
    Compression("zstd", re.compile(rb"\x28\xb5\x2f\xfd"), "zstd -dc", None),
)
_MAGIC_BYTES = 10  # of the longest


class _StrictHeader(tarfile.TarInfo):
    """A complete header, or the zeros of an end mark."""

    __slots__ = ()

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        """Parse a header block.

        Raises:
            ReadError: If it is damaged or cut.
        """
        try:
            return super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if any(buf):
                raise tarfile.ReadError(f"damaged: {error}") from None
            # An end mark may be cut off; an empty block is the end of the file.
            return super().frombuf(bytes(tarfile.BLOCKSIZE) if buf else buf, encoding, errors)


@contextmanager
def named_shard(shard: str) -> Iterator[None]:
    """Turn errors from reading a damaged tar in the block into a user error.

    Raises:
        UserError: Instead of another error.
    """
    try:
        yield
    except UserError:
        raise
    except _TAR_ERRORS as error:
        what = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise UserError(
            f"cannot read shard '{shard}' ({what}); check data.shards and that the tar is complete"
        ) from None


def compression_of(path: Path) -> Compression | None:
    """Return the compression of a local file, judged by its first bytes."""
    with open_regular(path) as file:
        return _recognise(file.read(_MAGIC_BYTES))


@contextmanager
def open_plain(path: Path) -> Iterator[tarfile.TarFile]:
    """Open an uncompressed local tar for random access."""
    with (
        open_regular(path) as file,
        tarfile.open(fileobj=file, mode="r:", **_strictly()) as tar,
    ):
        yield tar


@contextmanager
def open_stream(url: str, gopen: Callable[[str], Any]) -> Iterator[tarfile.TarFile]:
    """Open a tar for reading once, from its start to its end.

    Args:
        url: Local path, URL, or ``pipe:`` and a shell command; may be compressed.
        gopen: The webdataset library's function that opens it.

    Raises:
        UserError: If it is compressed in a way that Python cannot unpack.
        OSError: If the command that writes it fails, even at the end.
    """
    opened = gopen(url)
    try:
        # The library wraps a command's output; inside is a buffered file, like a local one.
        buffered = getattr(opened, "stream", opened)
        unpacked = _unpack(url, buffered, _recognise(buffered.peek(_MAGIC_BYTES)))
        with tarfile.open(fileobj=unpacked, mode="r|", **_strictly()) as tar:
            yield tar
    except tarfile.ReadError:
        _close(opened)
        raise
    else:
        _close(opened)
    finally:
        with suppress(OSError):
            opened.close()


def _strictly() -> dict[str, Any]:
    # With strict headers only zeros are skipped. Names that are not UTF-8 stay
    # distinct and printable.
    return {
        "tarinfo": _StrictHeader,
        "ignore_zeros": True,
        "encoding": "utf-8",
        "errors": "backslashreplace",
    }


def _recognise(head: bytes) -> Compression | None:
    return next((kind for kind in _COMPRESSIONS if kind.magic.match(head)), None)


def _close(opened: Any) -> None:
    """Close a stream; if not read to its end, it breaks its command's pipe."""
    try:
        opened.close()
    except OSError:
        status = getattr(opened, "status", None)
        if status != -signal.SIGPIPE:
            raise OSError(f"its command failed with exit status {status}") from None


def _unpack(url: str, stream: IO[bytes], compression: Compression | None) -> Any:
    if compression is None:
        return stream
    if compression.open is None:
        raise UserError(
            f"shard '{url}' is compressed with {compression.name}; read it with data.shards="
            f'"pipe:{compression.command} FILE", or unpack it'
        )
    return compression.open(stream)
