"""Count the operations for which a CPU would wait for a GPU, whatever the tensors' device."""

from types import TracebackType
from typing import Any, Self

import torch
from torch.utils._python_dispatch import TorchDispatchMode

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
    """Counts in its block; reading a value or the number of marks is one."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __enter__(self) -> Self:
        super().__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        super().__exit__(kind, error, trace)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        by_marks = func in _INDEXING and any(
            index is not None and index.dtype == torch.bool for index in args[1]
        )
        self.count += by_marks or func in _READING
        return func(*args, **(kwargs or {}))
