"""Walk what a checkpoint holds: nested containers, flattened to paths."""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rsa_pretrain.errors import UserError

SEPARATOR = "/"
_MAX_NODES = 200_000
_MAX_DEPTH = 32
_MAX_NAME_LETTERS = 1000
_MAX_INTEGER_BITS = 1024
_PLAIN_TYPES = frozenset(
    {
        torch.float16,
        torch.bfloat16,
        torch.float32,
        torch.float64,
        torch.bool,
        torch.uint8,
        torch.int8,
        torch.int16,
        torch.int32,
        torch.int64,
    }
)

Value = str | int | float | bool | None


def walk(path: Path, content: Any) -> Iterator[tuple[str, Tensor | Value]]:
    """Yield every tensor and plain value under its path, such as ``state_dict/conv1.weight``.

    Containers that share parts could hold them exponentially often, hence the bound.

    Args:
        path: Names the file in errors.
        content: Dicts, lists, tuples, namespaces, tensors, numpy arrays and plain values.

    Raises:
        UserError: If it nests too deeply, has too many parts, or a tensor is not a plain one.
    """
    num_nodes = 0
    stack: list[tuple[str, Any, int]] = [("", content, 0)]
    while stack:
        name, value, depth = stack.pop()
        num_nodes += 1
        if num_nodes > _MAX_NODES or depth > _MAX_DEPTH:
            raise UserError(f"'{path}' nests more than a checkpoint does; it is not read")
        if len(name) > _MAX_NAME_LETTERS or not name.isprintable():
            raise UserError(f"'{path}' holds a name that is no name: {printable(name)[:80]}…")
        if isinstance(value, Tensor):
            yield name, _plain_tensor(path, name, value)
        elif isinstance(value, np.ndarray):
            yield name, torch.from_numpy(value)
        elif value is None or isinstance(value, str | float | bool):
            yield name, value
        elif isinstance(value, int):
            if value.bit_length() > _MAX_INTEGER_BITS:
                raise UserError(f"'{path}' holds a number of {value.bit_length()} bits, '{name}'")
            yield name, value
        else:
            parts = list(_parts(value))
            names = [_join(name, key, position) for position, (key, _) in enumerate(parts)]
            below = zip(names, (part for _, part in parts), strict=True)
            stack += [(inside, part, depth + 1) for inside, part in below][::-1]


def tensors_in(path: Path, content: Any) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of ``walk``."""
    for name, value in walk(path, content):
        if isinstance(value, Tensor):
            yield name, value


def printable(text: str) -> str:
    """Return text that cannot steer a terminal."""
    return "".join(
        letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text
    )


def _parts(value: Any) -> Iterator[tuple[object, Any]]:
    if isinstance(value, argparse.Namespace):
        value = vars(value)
    if isinstance(value, dict):
        yield from value.items()
    elif isinstance(value, list | tuple):
        yield from enumerate(value)


def _join(name: str, key: object, position: int) -> str:
    small = isinstance(key, int) and key.bit_length() <= _MAX_INTEGER_BITS
    text = str(key) if isinstance(key, str) or small else f"{type(key).__name__} {position}"
    return f"{name}{SEPARATOR}{text}" if name else text


def _plain_tensor(path: Path, name: str, tensor: Tensor) -> Tensor:
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.dtype not in _PLAIN_TYPES:
        kind = f"{tensor.layout} {tensor.dtype}".replace("torch.", "")
        raise UserError(f"'{path}' holds '{name}' as {kind}; expected plain dense numbers")
    return tensor.detach()
