"""Walk the contents of a checkpoint: nested containers, flattened to paths."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.name_lists import first_of
from rsa_pretrain.weights.files.containers import is_module, parts_of
from rsa_pretrain.weights.files.stand_in import Deferred, Name, StandIn
from rsa_pretrain.weights.files.torch_builders import PLAIN_TYPES

SEPARATOR = "/"
_MODULE_SEPARATOR = "."
_MAX_NODES = 200_000
_MAX_DEPTH = 32
_MAX_NAME_LETTERS = 1000
_MAX_INTEGER_BITS = 1024
# A random state of Python is 625 numbers and a history of losses many more; settings are few.
_MAX_NUMBERS = 256
_SHOWN_NAMES = 8
_SHOWN_LETTERS = 100

Value = str | int | float | bool | None
Part = Tensor | NDArray[Any] | Value | StandIn | Name


def walk(path: Path, content: Any) -> Iterator[tuple[str, Part]]:
    """Yield every tensor and plain value under its path, such as ``state_dict/conv1.weight``.

    Objects are yielded as stand-ins, unless ``parts_of`` knows their parts. Tensors of a network
    pickled whole are named as in its ``state_dict()``. Containers that share parts could repeat
    them exponentially often, hence the limit.

    Args:
        path: Names the file in errors.
        content: Dicts, lists, tuples, tensors, numpy arrays, plain values, stand-ins.

    Raises:
        UserError: If it nests too deeply, has too many parts, or one without a proper name.
    """
    num_nodes = 0
    stack: list[tuple[str, str, Any, int]] = [("", SEPARATOR, content, 0)]
    while stack:
        name, separator, value, depth = stack.pop()
        num_nodes += 1
        if num_nodes > _MAX_NODES or depth > _MAX_DEPTH:
            raise UserError(f"'{path}' is nested more deeply than a checkpoint; it is not read")
        if len(name) > _MAX_NAME_LETTERS or not name.isprintable():
            raise UserError(f"'{path}' contains an invalid name: {printable(name)[:80]}…")
        made = value.make() if isinstance(value, Deferred) else value
        below = _MODULE_SEPARATOR if is_module(made) else SEPARATOR
        if isinstance(made, StandIn):
            made = parts_of(made, is_whole_file=depth == 0)
        parts = _parts(made)
        if parts is None:
            yield name, _leaf(path, name, made)
            continue
        stack += [
            (_join(name, separator, key, position), below, part, depth + 1)
            for position, (key, part) in enumerate(parts)
        ][::-1]


def printable(text: str) -> str:
    """Return text without characters that control a terminal."""
    return "".join(
        letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text
    )


def listed(names: Iterable[str], most: int = _SHOWN_NAMES) -> str:
    """Return the first of a file's names for one line, each shortened."""
    return first_of([name[:_SHOWN_LETTERS] for name in names], most)


def _parts(value: Any) -> Iterable[tuple[object, Any]] | None:
    """Return the parts of a container by key; None if it is not a container."""
    if isinstance(value, dict):
        return value.items()
    if isinstance(value, list | tuple) and not _is_long_list_of_numbers(value):
        return enumerate(value)
    return None


def _is_long_list_of_numbers(value: list[Any] | tuple[Any, ...]) -> bool:
    return len(value) > _MAX_NUMBERS and all(isinstance(part, int | float) for part in value)


def _leaf(path: Path, name: str, value: Any) -> Part:
    """Return a part as shown: tensors and plain values themselves, anything else as its kind."""
    if isinstance(value, Tensor):
        if value.layout == torch.strided and value.dtype in PLAIN_TYPES:
            return value.detach()
        return StandIn(f"tensor of {value.layout} {value.dtype}".replace("torch.", ""))
    if isinstance(value, int) and value.bit_length() > _MAX_INTEGER_BITS:
        raise UserError(f"'{path}' contains a number of {value.bit_length()} bits, '{name}'")
    if value is None or isinstance(value, np.ndarray | str | int | float | StandIn | Name):
        return value
    if isinstance(value, list | tuple):
        return StandIn("long list of numbers")
    return StandIn(type(value).__name__)


def _join(name: str, separator: str, key: object, position: int) -> str:
    small = isinstance(key, int) and key.bit_length() <= _MAX_INTEGER_BITS
    if isinstance(key, str | Name) or small:
        text = str(key)
    else:
        text = f"{key.name if isinstance(key, StandIn) else type(key).__name__} {position}"
    return f"{name}{separator}{text}" if name else text
