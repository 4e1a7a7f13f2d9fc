"""Make random draws that depend only on (seed, epoch, image)."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def draws_of(seed: int, epoch: int, image: int) -> Iterator[None]:
    """Seed torch's CPU generator for one image in one epoch; restore its state afterwards.

    The draws do not depend on the process, nor on what it drew before.

    Args:
        seed: Seed of the run.
        epoch: Pass over the data set.
        image: Number of the image in the data set.
    """
    sequence = np.random.SeedSequence([seed, epoch, image])
    # Only the CPU generator: torch.manual_seed also seeds every accelerator.
    generator = torch.default_generator
    before = generator.get_state()
    generator.manual_seed(int(sequence.generate_state(1, np.uint64)[0]))
    try:
        yield
    finally:
        generator.set_state(before)
