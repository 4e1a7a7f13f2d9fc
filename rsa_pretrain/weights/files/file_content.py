"""Read any checkpoint file safely: its tensors and plain values by path."""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.weights.checkpoint import file_sha256
from rsa_pretrain.weights.files.array_pickle import load_pickle
from rsa_pretrain.weights.files.containers import is_scripted
from rsa_pretrain.weights.files.danger import dangerous
from rsa_pretrain.weights.files.other_files import what_else
from rsa_pretrain.weights.files.regular_file import check_regular_file
from rsa_pretrain.weights.files.safetensors_file import header_length, load_safetensors
from rsa_pretrain.weights.files.stand_in import Name, StandIn
from rsa_pretrain.weights.files.torch_file import ZIP_MAGIC, load_torch_zip
from rsa_pretrain.weights.files.torch_legacy import is_torch_legacy, load_torch_legacy
from rsa_pretrain.weights.files.tree import Value, listed, printable, walk

_SNIFFED_BYTES = 512
# Networks that share layers repeat some tensors; thousands of repeats could not be inspected.
_MAX_REPEATS = 64
_MAX_KINDS = 100
_MAX_KIND_LETTERS = 200
_SHARE = re.compile(r"torch\.distributed\..*\.(DTensor|ShardedTensor)")
_PICKLE_PROTOCOLS = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


@dataclass(frozen=True)
class FileContent:
    """The contents of a checkpoint file."""

    path: Path
    kind: str
    """File format."""
    size: int
    """Bytes."""
    sha256: str
    tensors: Mapping[str, Tensor]
    """Tensors by path, such as ``state_dict/module.encoder_q.conv1.weight``."""
    values: Mapping[str, Value]
    """Plain values by path; a safetensors header's entries under their names."""
    passed_over: Mapping[str, int] = field(default_factory=dict)
    """Other objects: class or kind → how many."""
    dangerous: tuple[str, ...] = ()
    """Names that the file refers to in order to run code, none of which was run."""

    @property
    def shares(self) -> str:
        """Count of tensors that are one process's share, to end an error with; empty if none."""
        kinds = [kind for kind in self.passed_over if _SHARE.fullmatch(kind)]
        if not kinds:
            return ""
        return (
            f"; {sum(self.passed_over[kind] for kind in kinds)} tensors are {', '.join(kinds)}, "
            "of which every process saves only its share; save them whole, for instance with "
            "get_model_state_dict and full_state_dict=True of "
            "torch.distributed.checkpoint.state_dict"
        )


def read_checkpoint_file(path: Path) -> FileContent:
    """Read a checkpoint of any project; never runs code in the file.

    Args:
        path: A file of ``torch.save`` (either format) or ``torch.jit.save``, safetensors, or a
            pickle of arrays or tensors.

    Raises:
        UserError: If it is none of these, is damaged, has no tensors, or was made to run code.
    """
    content = look_at_file(path)
    if content.dangerous:
        raise UserError(
            f"'{path}' is refused because it was made to run code: it refers to "
            f"{listed(content.dangerous)}. None of it was run; rsa-pretrain inspect shows what "
            "else the file contains. Get the weights from a source you trust, as safetensors if it "
            "has them"
        )
    if not content.tensors:
        beside = f" (but {listed(content.passed_over)})" if content.passed_over else ""
        raise UserError(
            f"'{path}' contains no tensors{beside}; expected a checkpoint, as written by "
            "torch.save(model.state_dict(), ...)" + content.shares
        )
    return content


def look_at_file(path: Path) -> FileContent:
    """Read a file like ``read_checkpoint_file``, even one refused for its contents.

    Raises:
        UserError: If it is not a checkpoint or is damaged.
    """
    size = check_regular_file(path)
    with path.open("rb") as file:
        start = file.read(_SNIFFED_BYTES)
    try:
        kind, content, names = _load(path, size, start)
    except UserError as error:
        raise UserError(printable(str(error))) from None  # it may quote the file
    tensors, values, passed_over = _sort(path, content)
    if sum(tensor.nbytes for tensor in tensors.values()) > _MAX_REPEATS * size:
        raise UserError(f"'{path}' contains the same tensors more than {_MAX_REPEATS} times over")
    return FileContent(
        path,
        kind,
        size,
        file_sha256(path),
        tensors,
        values,
        passed_over,
        tuple(printable(name) for name in dangerous(names)),
    )


def _load(path: Path, size: int, start: bytes) -> tuple[str, Any, list[Name]]:
    if start.startswith(ZIP_MAGIC):
        content, names = load_torch_zip(path, size)
        return "torch.jit.save" if is_scripted(content) else "torch.save", content, names
    if is_torch_legacy(start):
        return "torch.save before 1.6", *load_torch_legacy(path, size)
    if start.startswith(_PICKLE_PROTOCOLS):
        return "pickle", *load_pickle(path)
    if header_length(start, size) is not None:
        tensors, header = load_safetensors(path)
        return "safetensors", {**header, **tensors}, []
    raise UserError(f"'{path}' is {what_else(start)}")


def _sort(path: Path, content: Any) -> tuple[dict[str, Tensor], dict[str, Value], dict[str, int]]:
    """Separate tensors and plain values; count the rest by kind."""
    tensors: dict[str, Tensor] = {}
    arrays: dict[str, NDArray[Any]] = {}
    values: dict[str, Value] = {}
    passed_over: Counter[str] = Counter()
    for name, part in walk(path, content):
        if isinstance(part, StandIn | Name):
            kind = printable(str(part))[:_MAX_KIND_LETTERS]
            is_shown = kind in passed_over or len(passed_over) < _MAX_KINDS
            passed_over[kind if is_shown else "other object"] += 1
        elif name in tensors or name in arrays or name in values:
            raise UserError(f"'{path}' contains '{name}' twice; it is not clear which one counts")
        elif isinstance(part, np.ndarray):
            arrays[name] = part
        elif not isinstance(part, Tensor):
            values[name] = part
        elif _is_random_state(part):
            passed_over["random state"] += 1
        else:
            tensors[name] = part
    if not any(tensor.dim() for tensor in tensors.values()):
        tensors.update({name: torch.from_numpy(array) for name, array in arrays.items()})
    elif arrays:  # weights are then tensors, and arrays are random states, statistics, labels
        passed_over["numpy.ndarray"] += len(arrays)
    return tensors, values, dict(passed_over)


def _is_random_state(tensor: Tensor) -> bool:
    """Return whether a tensor is a ``torch.get_rng_state``; no weights are rows of bytes."""
    return tensor.dtype == torch.uint8 and tensor.dim() == 1
