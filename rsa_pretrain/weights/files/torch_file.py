"""Read a zip of ``torch.save`` or ``torch.jit.save``, checked before it is trusted.

The zip is checked first: members stored, inside the file, their checksums right. Then its pickle
is read, without running it; its tensors are mapped from the file, so that none can reach beyond
it. The code of a TorchScript program is ignored.
"""

import io
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.memory import RAISE_LIMIT, why_out_of_memory
from rsa_pretrain.weights.files.pickle_reader import PickleReader
from rsa_pretrain.weights.files.stand_in import Name
from rsa_pretrain.weights.files.torch_builders import TORCH_BUILDERS, StorageTable, map_file
from rsa_pretrain.weights.files.tree import listed

ZIP_MAGIC = b"PK\x03\x04"
_MAX_MEMBERS = 100_000
_READ_BYTES = 2**20
_LOCAL_HEADER_BYTES = 30
_LENGTHS = struct.Struct("<HH")
_CODE = "code/"
# Other kinds of zips, by a member that they have.
_OTHER_ZIPS = {
    "model.json": "a TorchScript program from before PyTorch 1.1; save its state_dict() with "
    "torch.save",
    "archive_format": "a program of torch.export; save its state_dict() with torch.save",
    "model.weights.h5": "a Keras model; expected PyTorch weights",
}

Members = dict[str, zipfile.ZipInfo]


def load_torch_zip(path: Path, size: int) -> tuple[Any, list[Name]]:
    """Return the content of a zip, its tensors mapped from the file, and the names it refers to.

    Args:
        path: The file.
        size: Its size in bytes.

    Raises:
        UserError: If it is damaged, not a checkpoint, or of the other byte order.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = _checked_members(path, archive, size)
            table = StorageTable()
            reader = PickleReader(TORCH_BUILDERS, table.find)
            content = reader.read(io.BytesIO(archive.read(members["data.pkl"])))
            _place(path, size, members, table)
            return content, list(reader.names)
    except UserError:
        raise
    # A damaged directory surfaces as BadZipFile, NotImplementedError, struct.error, OSError,
    # EOFError, UnicodeDecodeError, OverflowError …: whatever zipfile raises on it.
    except Exception as error:
        raise damaged(path, error) from None


def damaged(path: Path, error: Exception) -> UserError:
    """Return the error for a damaged file."""
    lack = why_out_of_memory(error)
    if lack is not None:
        return UserError(f"'{path}' cannot be read: {lack}; {RAISE_LIMIT}")
    reason = str(error) if isinstance(error, pickle.UnpicklingError) else type(error).__name__
    return UserError(f"'{path}' is damaged and cannot be read as a torch checkpoint ({reason})")


def _checked_members(path: Path, archive: zipfile.ZipFile, size: int) -> Members:
    """Return the members that are read, by their names without the folder around them."""
    if not archive.namelist():
        raise UserError(f"'{path}' is damaged: its zip has no members")
    folder = archive.namelist()[0].partition("/")[0]
    members = {member.filename.removeprefix(f"{folder}/"): member for member in archive.infolist()}
    if len(members) < len(archive.namelist()) or len(members) > _MAX_MEMBERS:
        raise UserError(f"'{path}' is damaged: its zip has too many or repeated members")
    for name, what in _OTHER_ZIPS.items():
        if name in members:
            raise UserError(f"'{path}' is {what}")
    if "data.pkl" not in members:
        raise UserError(
            f"'{path}' is a zip without data.pkl (it contains {listed(archive.namelist(), 3)}); "
            "expected one of torch.save"
        )
    read = {name: member for name, member in members.items() if not name.startswith(_CODE)}
    _check_sizes(path, list(read.values()), size)
    if "byteorder" in read and archive.read(read["byteorder"]) != b"little":
        raise UserError(f"'{path}' is not little-endian; save it again on a little-endian machine")
    for member in read.values():
        _check_sum(path, archive, member)
    return read


def _check_sizes(path: Path, members: list[zipfile.ZipInfo], size: int) -> None:
    for member in members:
        if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1:
            raise UserError(
                f"'{path}' has compressed or encrypted '{member.filename}'; torch.save writes "
                "neither, so it is not unpacked"
            )
        if member.file_size > size or member.file_size != member.compress_size:
            raise UserError(f"'{path}' is damaged: '{member.filename}' is larger than the file")
    if sum(member.file_size for member in members) > size:
        raise UserError(f"'{path}' is damaged: its members overlap")


def _check_sum(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> None:
    with archive.open(member) as content:
        try:
            while content.read(_READ_BYTES):
                pass
        except zipfile.BadZipFile:
            raise UserError(
                f"'{path}' is damaged: the checksum of '{member.filename}' is wrong"
            ) from None


def _place(path: Path, size: int, members: Members, table: StorageTable) -> None:
    """Set the positions of the storages in the file."""
    source = map_file(path, size)
    with path.open("rb") as file:
        for key, storage in table.storages.items():
            member = members.get(f"data/{key}")
            if member is None or member.file_size < storage.block.num_bytes:
                raise pickle.UnpicklingError("it states tensors larger than the file")
            # The member's header states the length of the name and padding before the data.
            file.seek(member.header_offset + _LOCAL_HEADER_BYTES - _LENGTHS.size)
            lengths = _LENGTHS.unpack(file.read(_LENGTHS.size))
            start = member.header_offset + _LOCAL_HEADER_BYTES + sum(lengths)
            storage.block.place(source, start)
