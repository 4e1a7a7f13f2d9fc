"""Yield a probe's batches, in an order independent of processes and resumable at any step."""

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rsa_eval.features.labelled import LabelledFeatures
from rsa_pretrain.plumbing.device import to_device
from rsa_pretrain.plumbing.distributed import rank, world_size

# From a first step to one item per training step: this process's share of features, float32 (n, D),
# and labels, int64 (n,), on the probe's device.
ProbeBatches = Callable[[int], Generator[tuple[Tensor, Tensor], None, None]]

# Steps whose row numbers are sent to a GPU in one copy.
_STEPS_SENT_AT_ONCE = 64


@dataclass(frozen=True)
class StepBlock:
    """This process's images of consecutive steps.

    Attributes:
        epochs: Epoch of each image, int64 (n,).
        images: Their numbers in the set, int64 (n,).
        sizes: Images of each step; they add up to n.
    """

    epochs: npt.NDArray[np.int64]
    images: npt.NDArray[np.int64]
    sizes: list[int]


@dataclass(frozen=True)
class ReadOrder:
    """Order of the images: each once per epoch.

    An epoch's permutation depends only on the seed and the epoch; its last batch may be partial.
    """

    num_images: int
    batch_size: int
    epochs: int
    seed: int

    @property
    def steps_per_epoch(self) -> int:
        """Steps per epoch."""
        return -(-self.num_images // self.batch_size)

    @property
    def num_steps(self) -> int:
        """Steps of the whole training."""
        return self.epochs * self.steps_per_epoch

    def images_in(self, step: int) -> int:
        """Return the size of a step's batch, over all processes."""
        start = step % self.steps_per_epoch * self.batch_size
        return min(self.batch_size, self.num_images - start)

    def shares(self, first_step: int) -> Iterator[tuple[int, npt.NDArray[np.int64]]]:
        """Yield each step's epoch and this process's images.

        Process r of R takes the r-th of R contiguous parts of the batch, whose sizes differ by at
        most one; a part of a small last batch may be empty.
        """
        for step in range(first_step, self.num_steps):
            epoch, batch = divmod(step, self.steps_per_epoch)
            if batch == 0 or step == first_step:
                order = np.random.default_rng([self.seed, epoch]).permutation(self.num_images)
            images = order[batch * self.batch_size :][: self.batch_size]
            yield epoch, np.array_split(images, world_size())[rank()]

    def blocks(self, first_step: int, steps_per_block: int) -> Iterator[StepBlock]:
        """Yield the shares of several steps together.

        Blocks end at multiples of their length: a resumed run has those of an uninterrupted one,
        except that its first may be shorter.
        """
        shares = self.shares(first_step)
        length = steps_per_block - first_step % steps_per_block
        while steps := list(islice(shares, length)):
            epochs, images = zip(*steps, strict=True)
            sizes = [len(share) for share in images]
            yield StepBlock(np.repeat(epochs, sizes), np.concatenate(images), sizes)
            length = steps_per_block


def cached_batches(
    train: LabelledFeatures,
    order: ReadOrder,
    scaling: Callable[[Tensor], Tensor],
    device: torch.device,
) -> ProbeBatches:
    """Return batches of features that were extracted once.

    Features are scaled batch by batch: a scaled copy of ImageNet's would take another 10 GB.
    """
    features, labels = train.features.to(device), train.labels.to(device)

    def batches(first_step: int) -> Generator[tuple[Tensor, Tensor], None, None]:
        for block in order.blocks(first_step, _STEPS_SENT_AT_ONCE):
            sent = to_device(torch.from_numpy(block.images), device)
            for rows in torch.split(sent, block.sizes):
                yield scaling(features.index_select(0, rows)), labels.index_select(0, rows)

    return batches
