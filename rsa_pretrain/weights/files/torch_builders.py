"""Build torch's tensors from a pickle as views of byte blocks in the file, never beyond them."""

import math
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

import torch
from torch import Tensor

from rsa_pretrain.weights.files.numpy_builders import ARRAY_BUILDERS, PickledArray
from rsa_pretrain.weights.files.pickle_reader import Builder
from rsa_pretrain.weights.files.plain_builders import PLAIN_BUILDERS
from rsa_pretrain.weights.files.stand_in import Deferred, Name, StandIn

_MAX_DIMENSIONS = 64
_MAX_LENGTH = 2**63
_ALIGNMENT = 8
_MAX_TYPE_LETTERS = 60
_STORAGES = {
    "Float": torch.float32,
    "Double": torch.float64,
    "Half": torch.float16,
    "BFloat16": torch.bfloat16,
    "Bool": torch.bool,
    "Byte": torch.uint8,
    "Char": torch.int8,
    "Short": torch.int16,
    "Int": torch.int32,
    "Long": torch.int64,
    "ComplexFloat": torch.complex64,
    "ComplexDouble": torch.complex128,
    "QInt8": torch.qint8,
    "QUInt8": torch.quint8,
    "QInt32": torch.qint32,
}
_BYTES = ("torch.storage.UntypedStorage", "torch.UntypedStorage")
PLAIN_TYPES = frozenset({kind for name, kind in _STORAGES.items() if not name.startswith("Q")})


@dataclass(eq=False)
class Block:
    """Consecutive bytes of a file, placed once their position is known."""

    num_bytes: int
    data: torch.UntypedStorage | None = None

    def place(self, source: torch.UntypedStorage, start: int) -> None:
        """Map the bytes from a position in the file.

        Raises:
            pickle.UnpicklingError: If they are not all in the file.
        """
        end = start + self.num_bytes
        if not 0 <= start <= end <= source.nbytes():
            raise pickle.UnpicklingError("it states tensors larger than the file")
        data = source[start:end]
        # Processors may fault on unaligned numbers.
        self.data = data if start % _ALIGNMENT == 0 else data.clone()


@dataclass(frozen=True, eq=False)
class Storage:
    """Numbers of one type in a block."""

    block: Block
    dtype: torch.dtype
    start: int
    """Index of its first number in the block."""
    size: int
    """Count of numbers."""


@dataclass(eq=False)
class StoredTensor(Deferred):
    """A tensor as a view of a storage, checked when made."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def make(self) -> Tensor | StandIn:
        """Return the tensor, or a stand-in if its elements are not plain numbers."""
        data, dtype = self.storage.block.data, self.storage.dtype
        if dtype not in PLAIN_TYPES or data is None:
            return _unread(dtype)
        start = self.storage.start + self.offset
        return torch.empty(0, dtype=dtype).set_(data, start, self.shape, self.strides)


@dataclass(eq=False)
class TensorOfArray(Deferred):
    """A tensor of an accelerator, stored as a numpy array and its type."""

    array: PickledArray
    dtype: torch.dtype

    def make(self) -> Tensor | StandIn:
        """Return the tensor, or a stand-in if its elements are not plain numbers."""
        made = self.array.make()
        return made if isinstance(made, StandIn) else torch.from_numpy(made).to(self.dtype)


class StorageTable:
    """The storages that a file's pickle refers to, by their keys."""

    def __init__(self) -> None:
        """Start empty."""
        self.storages: dict[str | int, Storage] = {}

    def find(self, identity: Any) -> Any:
        """Return the object of a persistent id: a storage, or the class of a module.

        Raises:
            pickle.UnpicklingError: If it is neither.
        """
        kind, *parts = identity
        if kind == "module" and isinstance(parts[0], Name):  # its source code follows, unread
            return parts[0]
        if kind != "storage" or not isinstance(parts[1], str | int):
            raise pickle.UnpicklingError("it refers to data that is not a storage")
        storage_class, key, _, size, *view = parts
        storage = self._storage(key, _dtype_of(storage_class), size)
        if not view or view[0] is None:
            return storage
        _, start, length = view[0]
        if not _naturals((start, length)) or start + length > storage.size:
            raise pickle.UnpicklingError("a storage beyond the one it is a part of")
        return Storage(storage.block, storage.dtype, start, length)

    def _storage(self, key: str | int, dtype: torch.dtype, size: Any) -> Storage:
        if not _naturals((size,)):
            raise pickle.UnpicklingError("a storage whose size is not a number")
        known = self.storages.get(key)
        if known is None:
            known = Storage(Block(size * dtype.itemsize), dtype, 0, size)
            self.storages[key] = known
        if (known.dtype, known.size) != (dtype, size):
            raise pickle.UnpicklingError("a storage of two types or sizes")
        return known


def map_file(path: Path, size: int) -> torch.UntypedStorage:
    """Return the bytes of a file, none of them read yet; writes to them stay in memory."""
    return cast(torch.UntypedStorage, torch.UntypedStorage.from_file(str(path), False, size))


def _dtype_of(kind: Any) -> torch.dtype:
    if isinstance(kind, Name):
        if str(kind) in _BYTES:
            return torch.uint8
        name = kind.qualified.removesuffix("Storage")
        if kind.module in ("torch", "torch.cuda") and name in _STORAGES:
            return _STORAGES[name]
        raise pickle.UnpicklingError(f"a storage of {kind}, which is unknown")
    raise pickle.UnpicklingError("a storage of an invalid type")


def _naturals(numbers: Any) -> bool:
    return isinstance(numbers, tuple | list) and all(
        type(number) is int and 0 <= number < _MAX_LENGTH for number in numbers
    )


def _tensor(
    storage: Any,
    offset: Any,
    shape: Any,
    strides: Any,
    requires_grad: Any = False,
    hooks: Any = None,
    metadata: Any = None,
) -> Any:
    """Stand in for ``_rebuild_tensor`` and ``_rebuild_tensor_v2``."""
    if metadata:
        return StandIn("tensor whose sign or conjugate is stored separately")
    if not isinstance(storage, Storage):
        raise pickle.UnpicklingError("a tensor of an invalid storage")
    sound = _naturals((offset,)) and _naturals(shape) and _naturals(strides)
    if not sound or len(shape) != len(strides) or len(shape) > _MAX_DIMENSIONS:
        raise pickle.UnpicklingError("a tensor of an invalid shape")
    num_elements = math.prod(shape)
    last = sum((length - 1) * stride for length, stride in zip(shape, strides, strict=True))
    if num_elements > storage.size or (num_elements and offset + last >= storage.size):
        raise pickle.UnpicklingError("a tensor states a shape beyond its data")
    return StoredTensor(storage, offset if num_elements else 0, tuple(shape), tuple(strides))


def _tensor_without_storage_class(*arguments: Any) -> StandIn:
    """Stand in for ``_rebuild_tensor_v3``, which is used for types that are not read."""
    return _unread(arguments[6])


def _unread(dtype: object) -> StandIn:
    known = isinstance(dtype, Name | torch.dtype)  # other text could be arbitrarily long
    kind = str(dtype).removeprefix("torch.") if known else "an unknown type"
    return StandIn(f"tensor of {kind[:_MAX_TYPE_LETTERS]}")


def _tensor_of_array(array: Any, dtype: Any, *_: Any) -> Any:
    """Stand in for ``_rebuild_device_tensor_from_numpy``."""
    kinds = {str(kind): kind for kind in PLAIN_TYPES}
    kind = kinds.get(str(dtype)) if isinstance(dtype, Name) else None
    if not isinstance(array, PickledArray) or kind is None:
        return _unread(dtype)
    return TensorOfArray(array, kind)


def _same(data: Any, *_: Any) -> Any:
    """Stand in for wrappers of a tensor: parameters, and moves from other devices."""
    return data


def _of_subclass(function: Any, kind: Any, arguments: Any, state: Any = None) -> Any:
    """Stand in for ``_rebuild_from_type_v2``: a tensor of a subclass is read as a tensor."""
    builder = _TENSORS.get(str(function)) if isinstance(function, Name) else None
    if builder is None or not isinstance(arguments, tuple):
        return StandIn(str(kind) if isinstance(kind, Name) else "tensor of a subclass")
    return builder(*arguments)


def _size(lengths: Any = ()) -> tuple[Any, ...]:
    """Stand in for ``torch.Size``."""
    if not _naturals(lengths):
        raise pickle.UnpicklingError("a torch.Size of something other than lengths")
    return tuple(lengths)


def _device(kind: Any, index: Any = None) -> str:
    """Stand in for ``torch.device``, read as its text."""
    if not isinstance(kind, str) or not isinstance(index, int | None):
        raise pickle.UnpicklingError("a torch.device of something other than a device")
    return kind if index is None else f"{kind}:{index}"


_TENSORS: dict[str, Builder] = {
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_without_storage_class,
    "torch._utils._rebuild_device_tensor_from_numpy": _tensor_of_array,
    "torch._utils._rebuild_xla_tensor": _tensor_of_array,
    "torch._utils._rebuild_parameter": _same,
    "torch._utils._rebuild_parameter_with_state": _same,
    "torch._utils._rebuild_device_tensor_from_cpu_tensor": _same,
    "torch.nn.parameter.Parameter": _same,
}
TORCH_BUILDERS: Mapping[str, Builder] = MappingProxyType(
    {
        **PLAIN_BUILDERS,
        **ARRAY_BUILDERS,
        **_TENSORS,
        "torch._tensor._rebuild_from_type": _of_subclass,
        "torch._tensor._rebuild_from_type_v2": _of_subclass,
        "torch.Size": _size,
        "torch.device": _device,
    }
)
