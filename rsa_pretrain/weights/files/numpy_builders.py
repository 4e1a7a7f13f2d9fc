"""Build numpy's arrays and scalars from a pickle, checking what numpy's own builders trust."""

import math
import pickle
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal

import numpy as np

from rsa_pretrain.weights.files.pickle_reader import Builder
from rsa_pretrain.weights.files.stand_in import Deferred, Name, StandIn

# Element types that are plain numbers, whose arrays are read. For others only the type is shown.
_KINDS = frozenset({"f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "b1"})
_SCALAR_KINDS = _KINDS | {"u2", "u4", "u8"}
_BYTE_ORDERS = ("<", ">", "|", "=")
_MAX_DIMENSIONS = 32
_MAX_LENGTH = 2**63
_MAX_CODE_LETTERS = 40


class PickledDtype(Deferred):
    """A pickled element type."""

    def __init__(self, code: object, *_flags: object) -> None:
        """Take numpy's code for it, such as ``f4``."""
        self.code = code[:_MAX_CODE_LETTERS] if isinstance(code, str) else "an unknown type"
        self._order = "|"

    def build(self, state: Any) -> None:
        """Take the byte order."""
        if state[1] not in _BYTE_ORDERS or any(part is not None for part in state[2:5]):
            self.code = "compound elements"
        else:
            self._order = state[1]

    def make(self) -> StandIn:
        """Return its stand-in where it is not part of an array."""
        return StandIn("numpy.dtype", (self.code,))

    def numpy(self, kinds: frozenset[str] = _KINDS) -> np.dtype[Any] | None:
        """Return it as numpy's, or None if it is not a plain number."""
        return np.dtype(f"{self._order}{self.code}") if self.code in kinds else None


class PickledArray(Deferred):
    """A pickled array: empty when made, filled by its state."""

    def __init__(self, kind: object, shape: object, code: object) -> None:
        """Take the arguments of ``numpy._reconstruct``: an empty array of bytes."""
        if not isinstance(kind, Name) or shape != (0,) or code not in (b"b", "b"):
            raise pickle.UnpicklingError("an array that does not start empty")
        self._filling: tuple[Any, PickledDtype, tuple[int, ...], Literal["C", "F"]] | None = None

    def build(self, state: Any) -> None:
        """Take the array's shape, element type and data."""
        _, shape, dtype, column_major, data = state
        self._fill(data, dtype, shape, "F" if column_major else "C")

    def _fill(self, data: Any, dtype: Any, shape: Any, order: Any) -> None:
        if isinstance(data, str):  # written by Python 2
            data = data.encode("latin1")
        sound = (
            isinstance(shape, tuple)
            and len(shape) <= _MAX_DIMENSIONS
            and all(type(length) is int and 0 <= length < _MAX_LENGTH for length in shape)
            and isinstance(dtype, PickledDtype)
            and order in ("C", "F")
        )
        plain = dtype.numpy() if sound else None
        if not sound or (plain is not None and not _fits(data, plain, shape)):
            raise pickle.UnpicklingError("an array whose shape does not fit its data")
        self._filling = (data, dtype, shape, order)

    def make(self) -> Any:
        """Return the array in native byte order."""
        if self._filling is None:
            return StandIn("numpy.ndarray without data")
        data, dtype, shape, order = self._filling
        plain = dtype.numpy()
        if plain is None:
            return StandIn(f"numpy.ndarray of {dtype.code}")
        array = np.frombuffer(bytes(data), plain).reshape(shape, order=order)
        return array.astype(plain.newbyteorder("="))


def _fits(data: Any, dtype: np.dtype[Any], shape: tuple[int, ...]) -> bool:
    return isinstance(data, bytes | bytearray) and math.prod(shape) * dtype.itemsize == len(data)


def _array_of_buffer(data: Any, dtype: Any, shape: Any, order: Any) -> PickledArray:
    """Stand in for numpy's ``_frombuffer``, with which protocol 5 writes arrays."""
    array = PickledArray(Name("numpy", "ndarray"), (0,), b"b")
    array._fill(data, dtype, shape, order)
    return array


def _scalar(dtype: Any, data: Any = b"") -> Any:
    """Stand in for numpy's ``scalar``: a plain number becomes Python's."""
    plain = dtype.numpy(_SCALAR_KINDS) if isinstance(dtype, PickledDtype) else None
    if isinstance(data, str):  # written by Python 2
        data = data.encode("latin1")
    if plain is None:
        return StandIn("numpy scalar")
    if not _fits(data, plain, ()):
        raise pickle.UnpicklingError("a scalar whose type does not fit its data")
    return np.frombuffer(data, plain)[0].item()


def _encode(text: object, encoding: object) -> bytes:
    """Stand in for ``_codecs.encode``, with which old protocols write bytes."""
    if not isinstance(text, str) or encoding != "latin1":
        raise pickle.UnpicklingError("text in another encoding than latin1")
    return text.encode("latin1")


def _no_bytes() -> bytes:
    """Stand in for ``bytes()``, with which old protocols write empty data."""
    return b""


_OF_CORE: dict[str, Builder] = {
    "multiarray._reconstruct": PickledArray,
    "multiarray.scalar": _scalar,
    "numeric._frombuffer": _array_of_buffer,
}
ARRAY_BUILDERS: Mapping[str, Builder] = MappingProxyType(
    {
        "numpy.dtype": PickledDtype,
        "_codecs.encode": _encode,
        "__builtin__.bytes": _no_bytes,
        **{f"numpy.core.{name}": builder for name, builder in _OF_CORE.items()},
        **{f"numpy._core.{name}": builder for name, builder in _OF_CORE.items()},
    }
)
