"""Plan which images each optimizer step reads, and how its batch is split."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from torch.utils.data import Sampler

from rsa_pretrain.config import TrainingConfig
from rsa_pretrain.plumbing.errors import UserError


@dataclass(frozen=True)
class BatchPlan:
    """Split of a global batch: over processes, then into passes of each process.

    Process r takes the r-th contiguous share of the batch, and its pass m the m-th contiguous
    part of that share.
    """

    global_batch_size: int
    batch_size_per_device: int
    world_size: int
    rank: int

    def __str__(self) -> str:
        cut = f"{self.num_passes} x {self.batch_size_per_device}"
        return f"{self.global_batch_size} = {self.world_size} x {cut}"

    @property
    def num_passes(self) -> int:
        """Forward and backward passes of a process per optimizer step."""
        return self.global_batch_size // (self.world_size * self.batch_size_per_device)


def plan_batches(config: TrainingConfig, world_size: int, rank: int) -> BatchPlan:
    """Split the global batch of a run for this process.

    Raises:
        UserError: If it does not divide evenly, or BatchNorm would see a single image.
    """
    whole = config.global_batch_size
    per_device = config.batch_size_per_device
    if per_device is None:
        if whole % world_size != 0:
            raise UserError(
                f"training.global_batch_size {whole} cannot be divided evenly by "
                f"{world_size} processes; change one of them"
            )
        per_device = whole // world_size
    elif whole % (world_size * per_device) != 0:
        raise UserError(
            f"training.global_batch_size {whole} is not a multiple of {world_size} processes times "
            f"training.batch_size_per_device {per_device}; change one of them, or set "
            "batch_size_per_device=null"
        )
    if per_device < 2:
        raise UserError(
            "each device would get 1 image per pass, and BatchNorm needs 2; "
            "use fewer processes or a larger batch"
        )
    return BatchPlan(whole, per_device, world_size, rank)


class StepSampler(Sampler[list[tuple[int, int]]]):
    """Yields this process's batches for all remaining steps, as (epoch, image) pairs.

    Step ``s`` reads batch ``s mod steps_per_epoch`` of the permutation given by ``seed`` and the
    epoch, so a run can start at any step, with any number of processes, and read the same images
    as an uninterrupted run.

    Args:
        num_images: Size of the data set.
        plan: How each step's batch is split; an epoch's incomplete last batch is dropped.
        seed: Seed of the permutations.
        steps: First step and the one after the last.
    """

    def __init__(self, num_images: int, plan: BatchPlan, seed: int, steps: range) -> None:
        self.num_images = num_images
        self.plan = plan
        self.seed = seed
        self.steps = steps

    def __len__(self) -> int:
        return len(self.steps) * self.plan.num_passes

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        plan = self.plan
        steps_per_epoch = self.num_images // plan.global_batch_size
        order: list[int] = []
        current_epoch = None
        for step in self.steps:
            epoch, batch = divmod(step, steps_per_epoch)
            if epoch != current_epoch:
                generator = np.random.default_rng([self.seed, epoch])
                order = generator.permutation(self.num_images).tolist()
                current_epoch = epoch
            start = batch * plan.global_batch_size
            start += plan.rank * plan.num_passes * plan.batch_size_per_device
            for _ in range(plan.num_passes):
                end = start + plan.batch_size_per_device
                yield [(epoch, image) for image in order[start:end]]
                start = end
