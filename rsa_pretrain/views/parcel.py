"""Send any number of small tensors to a device as one copy."""

from collections.abc import Callable
from itertools import accumulate
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

Content = TypeVar("Content")

# Bytes to whose multiples a tensor's place in the buffer is aligned.
_ALIGNMENT = 16


class Parcel(Generic[Content]):
    """CPU tensors on their way to a device: packed into one buffer, unless it is the CPU.

    Args:
        content: Tensors in named tuples, lists and dictionaries, beside anything else.
        device: Where they go.
    """

    def __init__(self, content: Content, device: torch.device) -> None:
        self._content = content
        self._device = device
        self._buffer: Tensor | None = None
        if device.type != "cpu":
            self._content, self._buffer = packed(content, pinned=device.type == "cuda")

    def unpack(self) -> Content:
        """Return the content on the device; the CPU does not wait for the copy."""
        if self._buffer is None:
            return self._content
        return unpacked(self._content, self._buffer.to(self._device, non_blocking=True))


def packed(content: Content, *, pinned: bool) -> tuple[Content, Tensor]:
    """Copy tensors into one buffer.

    Returns:
        The content with tensors that lie in the buffer, and the buffer, uint8.
    """
    tensors: list[Tensor] = []
    _map_tensors(content, tensors.append)
    sizes = (-(-tensor.nbytes // _ALIGNMENT) * _ALIGNMENT for tensor in tensors)
    starts = list(accumulate(sizes, initial=0))
    buffer = torch.empty(starts[-1], dtype=torch.uint8, pin_memory=pinned)
    start = iter(starts)
    return _map_tensors(content, lambda x: _place(buffer, next(start), x).copy_(x)), buffer


def unpacked(content: Content, moved: Tensor) -> Content:
    """Return packed tensors as they lie in a copy of their buffer."""
    there: Content = _map_tensors(
        content, lambda x: _place(moved, int(x.storage_offset()) * x.itemsize, x)
    )
    return there


def _place(buffer: Tensor, start: int, like: Tensor) -> Tensor:
    return buffer[start : start + like.nbytes].view(like.dtype).view(like.shape)


def _map_tensors(content: Any, function: Callable[[Tensor], Any]) -> Any:
    if isinstance(content, Tensor):
        return function(content)
    if isinstance(content, dict):
        return {name: _map_tensors(value, function) for name, value in content.items()}
    if isinstance(content, list):
        return [_map_tensors(value, function) for value in content]
    if isinstance(content, tuple):
        return type(content)(*(_map_tensors(value, function) for value in content))
    return content
