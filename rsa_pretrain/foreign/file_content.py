"""Any checkpoint file, read safely: its tensors and plain values by path."""

import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from rsa_pretrain.checkpoint import file_sha256
from rsa_pretrain.errors import UserError
from rsa_pretrain.foreign.array_pickle import load_array_pickle
from rsa_pretrain.foreign.regular_file import check_regular_file
from rsa_pretrain.foreign.safetensors_file import header_length, load_safetensors
from rsa_pretrain.foreign.torch_file import (
    LEGACY_MAGIC,
    ZIP_MAGIC,
    load_torch_legacy,
    load_torch_zip,
)
from rsa_pretrain.foreign.tree import Value, printable, walk

_SNIFFED_BYTES = 64
_PICKLE_PROTOCOLS = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
_OTHER_FILES = {
    b"\x1f\x8b": "a gzip archive; unpack it first",
    b"version https://git-lfs": "a Git LFS pointer; fetch the file it stands for",
    b"<": "a web page; download the file itself",
    b"\x89HDF": "an HDF5 file",
    b"\x08": "an ONNX or TensorFlow file",
}


@dataclass(frozen=True)
class FileContent:
    """What a checkpoint file holds."""

    path: Path
    kind: str
    """How it is written."""
    size: int
    """Bytes."""
    sha256: str
    tensors: Mapping[str, Tensor]
    """By path, such as ``state_dict/module.encoder_q.conv1.weight``."""
    values: Mapping[str, Value]
    """Plain values by path; a safetensors header's entries under their names."""


def read_checkpoint_file(path: Path) -> FileContent:
    """Read a checkpoint of any project; runs no code of the file, whatever it holds.

    Args:
        path: A file of ``torch.save`` (either format), safetensors, or a pickle of numpy arrays.

    Raises:
        UserError: If it is none of these, damaged, or asks for more than tensors and values.
    """
    size = check_regular_file(path)
    with path.open("rb") as file:
        start = file.read(_SNIFFED_BYTES)
    try:
        kind, content = _load(path, size, start)
    except UserError as error:
        raise UserError(printable(str(error))) from None  # it may quote the file
    tensors: dict[str, Tensor] = {}
    values: dict[str, Value] = {}
    for name, value in walk(path, content):
        if name in tensors or name in values:
            raise UserError(f"'{path}' holds '{name}' twice; it is not clear which one counts")
        if isinstance(value, Tensor):
            tensors[name] = value
        else:
            values[name] = value
    if not tensors:
        raise UserError(f"'{path}' holds no tensors; expected a checkpoint")
    return FileContent(path, kind, size, file_sha256(path), tensors, values)


def _load(path: Path, size: int, start: bytes) -> tuple[str, Any]:
    if start.startswith(ZIP_MAGIC):
        return "torch.save", load_torch_zip(path, size)
    if start.startswith(LEGACY_MAGIC):
        return "torch.save before 1.6", load_torch_legacy(path)
    if start.startswith(_PICKLE_PROTOCOLS):
        return "pickle of numpy arrays", _load_pickle(path)
    if header_length(start, size) is not None:
        tensors, header = load_safetensors(path)
        return "safetensors", {**header, **tensors}
    for magic, what in _OTHER_FILES.items():
        if start.startswith(magic):
            raise UserError(f"'{path}' is {what}")
    raise UserError(
        f"'{path}' is not a checkpoint (it begins with {start[:8].hex(' ')}); expected a file of "
        "torch.save, safetensors, or a pickle of numpy arrays"
    )


def _load_pickle(path: Path) -> Any:
    try:
        return load_array_pickle(path.read_bytes())
    except pickle.UnpicklingError as error:
        raise UserError(f"'{path}' is not a pickle of arrays and plain values: {error}") from None
