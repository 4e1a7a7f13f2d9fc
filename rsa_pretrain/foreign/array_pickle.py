"""Read a plain pickle of numpy arrays without running any code that it names.

detectron2's ``.pkl`` weights are such files. The standard unpickler imports and calls whatever
the file asks for, so this one resolves a few names alone, and to classes of this module: they
check what numpy's own would believe. It is the unpickler written in Python, whose memo is a dict
(the C one reserves memory by an index the file states), on bytes already in memory (a stated
length cannot reserve more than there are).
"""

import io
import math
import pickle
import struct
from collections import OrderedDict
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

_KINDS = frozenset({"f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "b1"})
_BYTE_ORDERS = ("<", ">", "|", "=")
_MAX_DIMENSIONS = 32
_MAX_DEPTH = 32


class _Array:
    """A pickled array: empty when made, filled by its state."""

    def __init__(self, kind: object, shape: object, code: object) -> None:
        if kind is not _Array or shape != (0,) or code not in (b"b", "b"):
            raise pickle.UnpicklingError("an array that does not start empty")
        self.values: NDArray[Any] | None = None

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, column_major, data = state
        if isinstance(data, str):  # written by Python 2
            data = data.encode("latin1")
        self.values = _checked_array(data, dtype, shape, "F" if column_major else "C").values

    @classmethod
    def of(cls, values: NDArray[Any]) -> "_Array":
        """Return a filled array."""
        array = cls(cls, (0,), b"b")
        array.values = values
        return array


def _checked_array(data: Any, dtype: Any, shape: Any, order: Any) -> _Array:
    """Stand in for numpy's ``_frombuffer``, by which protocol 5 writes arrays."""
    sound = (
        isinstance(shape, tuple)
        and len(shape) <= _MAX_DIMENSIONS
        and all(type(length) is int and length >= 0 for length in shape)
        and isinstance(dtype, _Dtype)
        and isinstance(data, bytes | bytearray)
        and math.prod(shape) * dtype.numpy.itemsize == len(data)
        and order in ("C", "F")
    )
    if not sound:
        raise pickle.UnpicklingError("an array whose shape does not fit its data")
    return _Array.of(np.frombuffer(bytes(data), dtype.numpy).reshape(shape, order=order))


class _Dtype:
    """A pickled element type: one of the plain numbers."""

    def __init__(self, code: object, *_flags: object) -> None:
        if code not in _KINDS:
            raise pickle.UnpicklingError(f"an array of {code!r}, not of plain numbers")
        self.numpy = np.dtype(str(code))

    def __setstate__(self, state: Any) -> None:
        if state[1] not in _BYTE_ORDERS or any(part is not None for part in state[2:5]):
            raise pickle.UnpicklingError("an array of compound elements")
        self.numpy = self.numpy.newbyteorder(state[1])


def _encode(text: object, encoding: object) -> bytes:
    """Stand in for ``_codecs.encode``, by which old protocols write bytes."""
    if not isinstance(text, str) or encoding != "latin1":
        raise pickle.UnpicklingError("text in another encoding than latin1")
    return text.encode("latin1")


def _no_bytes() -> bytes:
    """Stand in for ``bytes()``, by which old protocols write empty data."""
    return b""


class ArrayUnpickler(pickle._Unpickler):
    """Builds containers, numbers, text and numpy arrays; refuses everything else by name."""

    _NAMES: ClassVar[dict[tuple[str, str], Any]] = {
        ("numpy._core.multiarray", "_reconstruct"): _Array,
        ("numpy.core.multiarray", "_reconstruct"): _Array,
        ("numpy", "ndarray"): _Array,
        ("numpy", "dtype"): _Dtype,
        ("numpy._core.numeric", "_frombuffer"): _checked_array,
        ("numpy.core.numeric", "_frombuffer"): _checked_array,
        ("_codecs", "encode"): _encode,
        ("__builtin__", "bytes"): _no_bytes,
        ("collections", "OrderedDict"): OrderedDict,
    }
    dispatch: ClassVar[dict[int, Any]] = dict(pickle._Unpickler.dispatch)

    def find_class(self, module: str, name: str) -> Any:
        """Resolve the names of ``_NAMES``; nothing is imported."""
        if (module, name) not in self._NAMES:
            raise pickle.UnpicklingError(f"it refers to {module}.{name}")
        return self._NAMES[module, name]

    def get_extension(self, code: int) -> None:
        """Refuse the process's own table of short names."""
        raise pickle.UnpicklingError(f"it refers to extension {code}")

    def load_build(self) -> None:
        """Give state to arrays and element types alone; a class or function keeps its own."""
        stack = self.stack  # type: ignore[attr-defined]  # not in the stubs
        if not isinstance(stack[-2], _Array | _Dtype):
            raise pickle.UnpicklingError("it changes an object that is no array")
        super().load_build()  # type: ignore[misc]  # not in the stubs

    def load_bytearray8(self) -> None:
        """Take as many bytes as there are; the standard one first reserves the stated length."""
        (length,) = struct.unpack("<Q", self.read(8))  # type: ignore[attr-defined]
        self.append(bytearray(self.read(length)))  # type: ignore[attr-defined]

    dispatch[pickle.BUILD[0]] = load_build
    dispatch[pickle.BYTEARRAY8[0]] = load_bytearray8


def load_array_pickle(data: bytes) -> Any:
    """Return what a pickle holds, its arrays as numpy arrays in native byte order.

    Args:
        data: The whole file.

    Returns:
        Dicts, lists, tuples, text, numbers and arrays.

    Raises:
        pickle.UnpicklingError: If it is damaged or asks for anything else, naming it.
    """
    try:
        content = ArrayUnpickler(io.BytesIO(data), encoding="latin1").load()
        return _with_arrays(content, {}, 0)
    except pickle.UnpicklingError:
        raise
    # Damaged opcodes surface as whatever the unpickler's Python meets: KeyError, IndexError,
    # TypeError, struct.error, EOFError, UnicodeDecodeError, OverflowError, MemoryError …
    except Exception as error:
        raise pickle.UnpicklingError(f"it is damaged ({type(error).__name__})") from None


def _with_arrays(value: Any, done: dict[int, Any], depth: int) -> Any:
    """Put numpy arrays in place of ``_Array``, each shared container once (``done``, by id)."""
    if depth > _MAX_DEPTH:
        raise pickle.UnpicklingError("it nests too deeply")
    if id(value) in done:
        return done[id(value)]
    if isinstance(value, dict):
        result: Any = {key: _with_arrays(item, done, depth + 1) for key, item in value.items()}
    elif isinstance(value, list | tuple):
        result = type(value)(_with_arrays(item, done, depth + 1) for item in value)
    elif isinstance(value, _Array):
        if value.values is None:
            raise pickle.UnpicklingError("an array without data")
        result = value.values.astype(value.values.dtype.newbyteorder("="))
    else:
        return value
    done[id(value)] = result
    return result
