"""Keep MoCo's queue of negatives in persistent buffers."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class MoCoQueue(nn.Module):
    """The newest keys, first in, first out (MoCo, Section 3.1).

    Starts as random unit vectors, as in the public code.

    Args:
        size: Number of keys kept, K.
        dim: Width of the keys, D.
    """

    keys: Tensor
    position: Tensor

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("keys", F.normalize(torch.randn(size, dim), dim=1))
        # On the device like the keys: reading it would wait for the step to finish.
        self.register_buffer("position", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def enqueue(self, keys: Tensor) -> None:
        """Replace the oldest keys.

        Args:
            keys: (n, D), any norm; the buffer wraps around, and only the last K of more than K
                keys are kept.
        """
        size = len(self.keys)
        newest = F.normalize(keys.to(self.keys.dtype), dim=1)[-size:]
        start = self.position + len(keys) - len(newest)
        rows = (start + torch.arange(len(newest), device=newest.device)) % size
        self.keys.index_copy_(0, rows, newest)
        self.position.add_(len(keys)).remainder_(size)
