"""Read a file of ``torch.save`` from before PyTorch 1.6: a row of pickles, then raw storages."""

import io
import pickle
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any

import torch

from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.weights.files.pickle_reader import PickleReader
from rsa_pretrain.weights.files.stand_in import Name
from rsa_pretrain.weights.files.torch_builders import (
    TORCH_BUILDERS,
    Storage,
    StorageTable,
    map_file,
)
from rsa_pretrain.weights.files.torch_file import damaged

_MAGIC = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_MAGIC_NUMBER = int.from_bytes(_MAGIC[2:-1], "little")
_PICKLE_START = b"\x80"
_MOST_BYTES_BEFORE_MAGIC = 11
_COUNT_BYTES = 8


class ForeignOrderError(Exception):
    """Raised for numbers in the other byte order."""


def is_torch_legacy(start: bytes) -> bool:
    """Return whether a file that starts like this has this format, in any protocol."""
    return start.startswith(_PICKLE_START) and 0 < start.find(_MAGIC) <= _MOST_BYTES_BEFORE_MAGIC


def load_torch_legacy(path: Path, size: int) -> tuple[Any, list[Name]]:
    """Return the content of a file, its tensors mapped from it, and the names it refers to.

    Args:
        path: The file.
        size: Its size in bytes.

    Raises:
        UserError: If it is damaged, or of the other byte order.
    """
    try:
        with path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as stream:
            return _read(stream, map_file(path, size))
    except ForeignOrderError:
        raise UserError(
            f"'{path}' was not written on a little-endian machine; save it again on one"
        ) from None
    except Exception as error:  # whatever damage causes: KeyError, TypeError, OverflowError …
        raise damaged(path, error) from None


def load_storage(data: Any) -> Storage:
    """Stand in for ``torch.storage._load_from_bytes``, with which plain pickles store tensors.

    Raises:
        pickle.UnpicklingError: If the bytes contain anything but a storage.
    """
    if not isinstance(data, bytes):
        raise pickle.UnpicklingError("a storage of something other than bytes")
    source = torch.frombuffer(bytearray(data), dtype=torch.uint8).untyped_storage()
    content, _ = _read(io.BytesIO(data), source)
    if not isinstance(content, Storage):
        raise pickle.UnpicklingError("a storage whose bytes are no storage")
    return content


def _read(stream: mmap | io.BytesIO, source: torch.UntypedStorage) -> tuple[Any, list[Name]]:
    """Read from a stream; tensors become views of ``source``, the same bytes."""
    table = StorageTable()
    reader = PickleReader(TORCH_BUILDERS, table.find)
    magic, _version, system = [reader.read(stream) for _ in range(3)]
    if magic != _MAGIC_NUMBER:
        raise pickle.UnpicklingError("it does not begin like such a file")
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise ForeignOrderError
    content, keys = [reader.read(stream) for _ in range(2)]
    if not all(isinstance(key, str | int) for key in keys) or len(set(keys)) < max(
        len(keys), len(table.storages)
    ):
        raise pickle.UnpicklingError("it states storages that it does not contain")
    for key in keys:
        storage = table.storages[key]
        if int.from_bytes(stream.read(_COUNT_BYTES), "little") != storage.size:
            raise pickle.UnpicklingError("it states tensors larger than the file")
        storage.block.place(source, stream.tell())
        stream.seek(storage.block.num_bytes, io.SEEK_CUR)
    return content, list(reader.names)
