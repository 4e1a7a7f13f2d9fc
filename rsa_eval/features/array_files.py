"""Read arrays of ``.npy``, ``.npz`` and safetensors files that anyone may have written.

Nothing is unpickled, and no memory is allocated before the file is known to hold as many bytes as
its header claims. Arrays of ``.npy`` and safetensors files are mapped into memory, copy-on-write.
"""

import io
import math
import stat
import struct
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from torch import Tensor

from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.memory import require_memory, why_out_of_memory
from rsa_pretrain.plumbing.name_lists import first_of

Array = npt.NDArray[Any]

_MOST_HEADER_BYTES = 2**16
_CHUNK_BYTES = 2**20
_ENCRYPTED = 1
_MAPPED = "store it as .npy files, which are mapped into memory if they are float32"
# DEFLATE packs at most 1,032 bytes into one, after a short header.
_MOST_PER_PACKED_BYTE, _SLACK_BYTES = 1032, 1024
_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
# Whatever NumPy's reader of headers, which evaluates a literal, raises at damage.
_NO_HEADER = (
    *(ValueError, SyntaxError, TypeError, LookupError, OverflowError, RecursionError),
    *(MemoryError, EOFError, AttributeError, tokenize.TokenError, struct.error, Warning),
)
_NO_ARCHIVE = (
    *(zipfile.BadZipFile, zlib.error, NotImplementedError, EOFError, RuntimeError, OSError),
    *(ValueError, LookupError, OverflowError, struct.error),
)
_NO_TENSORS = (
    *(SafetensorError, LookupError, AttributeError, RuntimeError, ValueError, TypeError, OSError),
)


@dataclass(frozen=True)
class _Header:
    """Shape and type of an array, as a ``.npy`` file states them."""

    shape: tuple[int, ...]
    is_fortran: bool
    dtype: np.dtype[Any]
    num_bytes: int
    """Length of the header; the array's bytes follow."""

    @property
    def num_array_bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    def shaped(self, content: Array) -> Array:
        """Return the array's bytes, uint8, as the array."""
        flat = content.view(self.dtype)
        if self.is_fortran:
            return flat.reshape(self.shape[::-1]).T
        return flat.reshape(self.shape)


def check_readable(path: Path, expected: str) -> None:
    """Refuse what is no regular file with content; a pipe is not opened, which would block.

    Args:
        path: The file.
        expected: What it should be, for errors.

    Raises:
        UserError: If it is absent or unreadable, a folder, a pipe or a device, or empty.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            what = "a folder" if stat.S_ISDIR(status.st_mode) else "a pipe or a device"
            raise UserError(f"'{path}' is {what}; expected {expected}")
        path.open("rb").close()
    except OSError as error:
        raise UserError(f"cannot read '{path}': {error.strerror}; expected {expected}") from None
    if status.st_size == 0:
        raise UserError(f"'{path}' is empty; expected {expected}")


def map_npy(path: Path) -> Array:
    """Map the array of a ``.npy`` file.

    Raises:
        UserError: If it is damaged, or its elements are no numbers.
    """
    with path.open("rb") as file:
        header = _read_header(file.read(_MOST_HEADER_BYTES), f"'{path}'")
        found = file.seek(0, io.SEEK_END) - header.num_bytes
    if found != header.num_array_bytes:
        raise UserError(
            f"'{path}' has {found:,} bytes after its header, expected {header.num_array_bytes:,} "
            f"for shape {header.shape} of {header.dtype}; write it again with numpy.save"
        )
    if found == 0:
        return np.empty(header.shape, header.dtype)
    try:
        mapped = np.memmap(path, np.uint8, "c", header.num_bytes, (found,))
    except ValueError as error:  # it became shorter
        raise UserError(f"'{path}' cannot be mapped: {error}") from None
    return header.shaped(mapped)


def read_npz(path: Path, choices: Sequence[Sequence[str]]) -> dict[str, Array]:
    """Read one of several sets of arrays of a ``.npz`` file into memory, whatever else it holds.

    Args:
        path: The file.
        choices: Names of the arrays of each set.

    Raises:
        UserError: If the file is damaged, does not hold exactly one of the sets, or an array's
            elements are no numbers.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            names = [member.filename.removesuffix(".npy") for member in members]
            chosen = choose_names(names, choices, path, "array")
            return {
                name: _read_member(archive, members[names.index(name)], path) for name in chosen
            }
    except UserError:
        raise
    except _NO_ARCHIVE as error:
        raise UserError(
            f"'{path}' is not a complete .npz file ({_brief(error)}); write it with numpy.savez"
        ) from None
    except MemoryError:
        raise UserError(f"'{path}' does not fit into memory; {_MAPPED}") from None


def read_safetensors(
    path: Path, choices: Sequence[Sequence[str]]
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Map one of several sets of tensors of a safetensors file, whatever else it holds.

    The library checks that each tensor's bytes fit its shape and are in the file.

    Args:
        path: The file.
        choices: Names of the tensors of each set.

    Returns:
        The tensors, and the text entries of the header.

    Raises:
        UserError: If the file is damaged, or does not hold exactly one of the sets.
    """
    try:
        with safe_open(path, framework="pt") as file:
            chosen = choose_names(list(file.keys()), choices, path, "tensor")
            tensors = {name: file.get_tensor(name) for name in chosen}
            return tensors, dict(file.metadata() or {})
    except UserError:
        raise
    except _NO_TENSORS as error:
        if why_out_of_memory(error) is not None:
            raise
        raise UserError(f"'{path}' is not a complete safetensors file ({_brief(error)})") from None


def choose_names(
    names: Sequence[str], choices: Sequence[Sequence[str]], path: Path, what: str
) -> Sequence[str]:
    """Return the only one of several sets of names that a file holds.

    Raises:
        UserError: If it holds none or several of them, or a name twice.
    """
    listed = " or ".join(" and ".join(choice) for choice in choices)
    found = [choice for choice in choices if set(choice) <= set(names)]
    if len(found) != 1:
        held = first_of([repr(name) for name in names]) or "none"
        raise UserError(f"'{path}' has {what}s {held}; expected {listed}, and not several of these")
    twice = [name for name in found[0] if names.count(name) > 1]
    if twice:
        raise UserError(f"'{path}' has two {what}s named '{twice[0]}'; expected one")
    return found[0]


def _read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path) -> Array:
    what = f"'{member.filename}' in '{path}'"
    if member.flag_bits & _ENCRYPTED or member.compress_type not in (
        zipfile.ZIP_STORED,
        zipfile.ZIP_DEFLATED,
    ):
        raise UserError(f"{what} is packed in another way than by numpy.savez")
    with archive.open(member) as stream:
        start = stream.read(_MOST_HEADER_BYTES)
        header = _read_header(start, what)
        size = header.num_array_bytes
        possible = _SLACK_BYTES + _MOST_PER_PACKED_BYTE * member.compress_size
        if size != member.file_size - header.num_bytes or size > possible:
            raise UserError(
                f"{what} has {member.file_size:,} bytes, packed into {member.compress_size:,}, "
                f"which do not fit shape {header.shape} of {header.dtype}; write it again"
            )
        require_memory(size, f"the numbers of {what}", _MAPPED)
        values = np.empty(size, np.uint8)
        _fill(values, start[header.num_bytes :], stream)
    return header.shaped(values)


def _fill(values: npt.NDArray[np.uint8], start: bytes, stream: IO[bytes]) -> None:
    """Fill an array of bytes from a stream, whose checksum is checked at its end."""
    values[: len(start)] = np.frombuffer(start, np.uint8)
    view, place = values.data, len(start)
    while place < len(view):
        chunk = stream.read(min(_CHUNK_BYTES, len(view) - place))
        if not chunk:
            raise EOFError("it ends early")
        view[place : place + len(chunk)] = chunk
        place += len(chunk)
    if stream.read(1):
        raise ValueError("it has more bytes than its header states")


def _read_header(start: bytes, what: str) -> _Header:
    """Parse the header of a ``.npy`` file from its first bytes."""
    stream = io.BytesIO(start)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            version = np.lib.format.read_magic(stream)
            if version not in _HEADERS:
                raise ValueError(f"format version {version[0]}.{version[1]}")
            shape, is_fortran, dtype = _HEADERS[version](stream)
    except _NO_HEADER as error:
        raise UserError(
            f"{what} is not an array of numbers as numpy.save writes it ({_brief(error)})"
        ) from None
    if dtype.kind not in "biufc":
        raise UserError(
            f"{what} holds elements of type {dtype}, and pickled objects, text and records are "
            "not read; expected numbers"
        )
    if any(side < 0 for side in shape):
        raise UserError(f"{what} states the shape {shape}; expected sides of 0 or more")
    return _Header(shape, is_fortran, dtype, stream.tell())


def _brief(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
