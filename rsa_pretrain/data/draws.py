"""Random draws that depend on (seed, epoch, image) alone."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def draws_of(seed: int, epoch: int, image: int) -> Iterator[None]:
    """Let torch's CPU generator draw for one image in one epoch; it is put back afterwards.

    Which process does it, and what it did before, makes no difference.

    Args:
        seed: Seed of the run.
        epoch: Pass over the data set.
        image: Number of the image in the data set.
    """
    sequence = np.random.SeedSequence([seed, epoch, image])
    # The CPU generator alone: torch.manual_seed also visits every accelerator.
    generator = torch.default_generator
    before = generator.get_state()
    generator.manual_seed(int(sequence.generate_state(1, np.uint64)[0]))
    try:
        yield
    finally:
        generator.set_state(before)
