"""Read a file of ``torch.save`` with ``weights_only=True``, looked over before it is believed.

The zip is checked first (members stored, inside the file, their checksums right), then the
names that its pickle asks for; its tensors are mapped from the file, so that none can reach
beyond it. Files from before PyTorch 1.6 are a row of pickles with raw storages behind them; they
are read from memory, first into tensors without any, which tell the sizes that are stated.
"""

import argparse
import io
import logging
import pickle
import pickletools
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from rsa_pretrain.errors import UserError
from rsa_pretrain.foreign.array_pickle import load_array_pickle
from rsa_pretrain.foreign.quiet import quiet
from rsa_pretrain.foreign.tree import tensors_in

ZIP_MAGIC = b"PK\x03\x04"
LEGACY_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_MAX_PICKLE_BYTES = 16 * 2**20
_MAX_MEMBERS = 100_000
_NUM_LEGACY_PICKLES = 5
_PROTOCOL = 2

# A Namespace is how training scripts keep their options. Making one runs no code: torch's reader
# fills its __dict__ and nothing else.
_SAFE_CLASSES: list[Any] = [argparse.Namespace]
_SAFE_NAMES = frozenset(
    {
        "argparse.Namespace",
        "collections.OrderedDict",
        "collections.defaultdict",
        "collections.Counter",
        "builtins.set",
        "__builtin__.set",
        "_codecs.encode",
        "torch.Size",
        "torch.device",
        "torch.nn.parameter.Parameter",
        "torch._utils._rebuild_parameter",
        "torch._utils._rebuild_tensor",
        "torch._utils._rebuild_tensor_v2",
        "torch._tensor._rebuild_from_type_v2",
    }
    | {f"torch.{kind}Storage" for kind in ("Float", "Double", "Half", "BFloat16", "Bool", "Byte")}
    | {f"torch.{kind}Storage" for kind in ("Char", "Short", "Int", "Long")}
    | {
        f"torch.{kind}"
        for kind in ("float16", "float32", "float64", "bfloat16", "int32", "int64", "bool")
    }
)
# It logs a traceback of each shape that does not fit, which is refused here with one line.
_FAKE_TENSOR_LOGGER = ("torch._subclasses.fake_tensor",)
_MEMBERS_OF_A_PROGRAM = ("constants.pkl", "model.json")


def load_torch_zip(path: Path, size: int) -> Any:
    """Return what a zip of ``torch.save`` holds; its tensors are mapped from the file.

    Args:
        path: The file.
        size: Its size in bytes.

    Raises:
        UserError: If it is damaged, no checkpoint, of the other byte order, or asks for anything
            but tensors and plain values.
    """
    _refuse_foreign_names(path, [_checked_pickle(path, size)])
    return _load_mapped(path, size)


def load_torch_legacy(path: Path) -> Any:
    """Return what a file of PyTorch's older format holds.

    Raises:
        UserError: As ``load_torch_zip``.
    """
    data = path.read_bytes()
    pickles = _split_pickles(path, data)
    _refuse_foreign_names(path, pickles)
    try:
        system = load_array_pickle(pickles[2])
    except pickle.UnpicklingError as error:
        raise _damaged(path, error) from None
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise UserError(f"'{path}' was not written on a little-endian machine; save it anew on one")
    return _load_from_memory(path, data)


def _checked_pickle(path: Path, size: int) -> bytes:
    """Check the zip's members and return the pickle among them."""
    try:
        with zipfile.ZipFile(path) as archive:
            _check_members(path, archive, size)
            folder = archive.namelist()[0].partition("/")[0]
            names = {name.removeprefix(f"{folder}/"): name for name in archive.namelist()}
            if any(name in names for name in _MEMBERS_OF_A_PROGRAM):
                raise UserError(
                    f"'{path}' is a TorchScript program, not weights; "
                    "save its state_dict() with torch.save"
                )
            if "data.pkl" not in names:
                raise UserError(f"'{path}' is a zip without data.pkl; expected one of torch.save")
            if archive.getinfo(names["data.pkl"]).file_size > _MAX_PICKLE_BYTES:
                raise UserError(f"'{path}' has more than {_MAX_PICKLE_BYTES} bytes to unpickle")
            if "byteorder" in names and archive.read(names["byteorder"]) != b"little":
                raise UserError(f"'{path}' is not little-endian; save it anew on such a machine")
            damaged = archive.testzip()
            if damaged is not None:
                raise UserError(f"'{path}' is damaged: the checksum of '{damaged}' is wrong")
            return archive.read(names["data.pkl"])
    except UserError:
        raise
    # A damaged directory surfaces as BadZipFile, NotImplementedError, struct.error, OSError,
    # EOFError, UnicodeDecodeError, OverflowError …: whatever zipfile meets in it.
    except Exception as error:
        raise _damaged(path, error) from None


def _check_members(path: Path, archive: zipfile.ZipFile, size: int) -> None:
    members = archive.infolist()
    names = {member.filename for member in members}
    if not members or len(members) > _MAX_MEMBERS or len(names) < len(members):
        raise UserError(f"'{path}' is damaged: its zip has no, too many or repeated members")
    for member in members:
        if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1:
            raise UserError(
                f"'{path}' holds compressed or encrypted '{member.filename}'; torch.save writes "
                "neither, so it is not unpacked"
            )
        if member.file_size > size or member.file_size != member.compress_size:
            raise UserError(f"'{path}' is damaged: '{member.filename}' is larger than the file")
    if sum(member.file_size for member in members) > size:
        raise UserError(f"'{path}' is damaged: its members overlap")


def _split_pickles(path: Path, data: bytes) -> list[bytes]:
    """Cut the pickles at the start of an older file; nothing is unpickled."""
    pickles = []
    stream = io.BytesIO(data)
    try:
        for _ in range(_NUM_LEGACY_PICKLES):
            start = stream.tell()
            for _opcode in pickletools.genops(stream):
                pass
            pickles.append(data[start : stream.tell()])
    except Exception as error:  # as in _checked_pickle: whatever damaged opcodes lead to
        raise _damaged(path, error) from None
    return pickles


def _refuse_foreign_names(path: Path, pickles: list[bytes]) -> None:
    """Name everything the pickles ask for beyond tensors and plain values."""
    if sum(len(content) for content in pickles) > _MAX_PICKLE_BYTES:
        raise UserError(f"'{path}' has more than {_MAX_PICKLE_BYTES} bytes to unpickle")
    try:
        asked = sorted({name for content in pickles for name in _names_asked_for(content)})
    except Exception as error:  # as in _checked_pickle: whatever damaged opcodes lead to
        raise _damaged(path, error) from None
    foreign = [name for name in asked if name not in _SAFE_NAMES]
    if foreign:
        raise UserError(
            f"'{path}' asks to unpickle {', '.join(foreign[:5])}"
            + (f" and {len(foreign) - 5} more" if len(foreign) > 5 else "")
            + "; only tensors and plain values are read: in the project that wrote it, save its "
            "state_dict alone"
        )


def _names_asked_for(content: bytes) -> Iterator[str]:
    for opcode, argument, _ in pickletools.genops(content):
        if opcode.name in ("GLOBAL", "INST"):
            yield str(argument).replace(" ", ".")
        elif opcode.name == "PROTO" and argument != _PROTOCOL:
            yield f"by protocol {argument} in place of torch.save's {_PROTOCOL}"
        elif opcode.name in ("STACK_GLOBAL", "EXT1", "EXT2", "EXT4"):
            yield f"a name by {opcode.name}"


def _load_mapped(path: Path, size: int) -> Any:
    with _torch_errors(path):
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        _check_stated_sizes(path, content, size)
        return content


def _load_from_memory(path: Path, data: bytes) -> Any:
    with _torch_errors(path):
        with FakeTensorMode(), quiet(_FAKE_TENSOR_LOGGER, logging.CRITICAL):
            content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
            _check_stated_sizes(path, content, len(data))
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)


@contextmanager
def _torch_errors(path: Path) -> Iterator[None]:
    try:
        with torch.serialization.safe_globals(_SAFE_CLASSES):
            yield
    except UserError:
        raise
    # torch raises RuntimeError, UnpicklingError, AssertionError, KeyError, TypeError … on damage.
    except Exception as error:
        raise _damaged(path, error) from None


def _check_stated_sizes(path: Path, content: Any, size: int) -> None:
    storages = {}
    for name, tensor in tensors_in(path, content):
        storage = tensor.untyped_storage()
        storages[storage._cdata] = storage.nbytes()
        if tensor.numel() * tensor.element_size() > storage.nbytes():
            raise UserError(f"'{path}' is damaged: '{name}' states a shape beyond its data")
    if sum(storages.values()) > size:
        raise UserError(f"'{path}' is damaged: it states tensors larger than the file")


def _damaged(path: Path, error: Exception) -> UserError:
    # torch's message goes on to advise loading without weights_only, which is no advice to give.
    text = " ".join(str(error).split())
    reason = text.rpartition("WeightsUnpickler error:")[2].strip()
    if not reason or "weights_only" in reason:
        reason = type(error).__name__
    return UserError(
        f"'{path}' is damaged and cannot be read as a torch checkpoint ({reason[:200]})"
    )
