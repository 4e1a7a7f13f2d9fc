"""Find the operations for which a CPU would wait for a GPU, whatever the tensors' device."""

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_aten = torch.ops.aten
_READING = {
    _aten._local_scalar_dense.default,
    _aten.equal.default,
    _aten.is_nonzero.default,
    _aten.masked_select.default,
    _aten.nonzero.default,
}
_INDEXING = {_aten.index.Tensor, _aten.index_put.default, _aten.index_put_.default}


class HostReads(TorchDispatchMode):
    """Counts them in its block: readings of a value or of the number of marks, and copies home."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if _waits(func, args, result):
            self.count += 1
            self.found(func)
        return result

    def found(self, func: Any) -> None:
        """Do nothing more about such an operation."""


class WithoutHostReads(HostReads):
    """Fails at them."""

    def found(self, func: Any) -> None:
        """Raise, as a GPU that is being captured does."""
        raise RuntimeError(f"{func} reads from the device")


def _waits(func: Any, args: tuple[Any, ...], result: Any) -> bool:
    by_marks = func in _INDEXING and any(
        index is not None and index.dtype == torch.bool for index in args[1]
    )
    return by_marks or func in _READING or ("cuda" in _devices(args) and "cpu" in _devices(result))


def _devices(tree: Any) -> set[str]:
    return {leaf.device.type for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)}
