"""Seed torch for the length of a block."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch's generators; afterwards the CPU's continues where it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
