"""Stand-in for a CUDA graph on a CPU: operations recorded at fixed addresses, and repeated."""

import torch
from host_reads import WithoutHostReads
from torch.utils._pytree import tree_leaves


class _Recorder(WithoutHostReads):
    """Keeps every operation with its tensors."""

    def __init__(self, calls):
        super().__init__()
        self.calls = calls

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = super().__torch_dispatch__(func, types, args, kwargs)
        self.calls.append((func, args, kwargs or {}, result))
        return result


class Tape:
    """Like ``CudaGraph``: memory is fixed, and Python numbers stay as they were recorded."""

    def __init__(self):
        self.calls = []
        self.num_replays = 0

    def record(self, work):
        """Record work. Unlike a CUDA graph this does it too, so that the first replay needn't."""
        with _Recorder(self.calls):
            return work()

    @torch.no_grad()
    def replay(self):
        """Repeat every operation on the tensors it had."""
        self.num_replays += 1
        if self.num_replays == 1:
            return
        for func, args, kwargs, result in self.calls:
            again = func(*args, **kwargs)
            for kept, new in zip(tree_leaves(result), tree_leaves(again), strict=True):
                if isinstance(kept, torch.Tensor) and kept.data_ptr() != new.data_ptr():
                    kept.copy_(new)
