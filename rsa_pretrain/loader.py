"""The order in which training reads images, and the loader that brings them."""

from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from rsa_pretrain.config import TrainingConfig
from rsa_pretrain.draws import draws_of
from rsa_pretrain.errors import UserError
from rsa_pretrain.image_set import UNLABELLED, ImageSet
from rsa_pretrain.shards import ShardSet, shard_loader
from rsa_pretrain.stop_signal import leave_signals_to_main_process


@dataclass(frozen=True)
class BatchPlan:
    """How a global batch is cut: over processes, then into passes of each process.

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
    """Cut the global batch of a run for this process.

    Raises:
        UserError: If it does not come out even, or BatchNorm would see a single image.
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
            f"training.global_batch_size {whole} is no multiple of {world_size} processes times "
            f"training.batch_size_per_device {per_device}; change one of them, or set "
            "batch_size_per_device=null"
        )
    if per_device < 2:
        raise UserError(
            "each device would get 1 image per pass, and BatchNorm needs 2; "
            "use fewer processes or a larger batch"
        )
    return BatchPlan(whole, per_device, world_size, rank)


def training_batches(
    images: ImageSet | ShardSet,
    transform: Callable[[Image.Image], Any],
    seed: int,
    plan: BatchPlan,
    steps: range,
    num_workers: int,
    device: torch.device,
) -> Generator[tuple[Any, Tensor], None, None]:
    """Bring what this process trains on, one pass after the other.

    Args:
        images: Training images.
        transform: Draws the views of one image.
        seed: Decides order and draws.
        plan: How each step's batch is cut.
        steps: First step and the one after the last.
        num_workers: Loader processes.
        device: Where the batches will go.

    Yields:
        Collated views, and int64 labels (N,), ``UNLABELLED`` where there are none.

    Raises:
        UserError: If an image cannot be read.
    """
    if isinstance(images, ShardSet):
        passes = plan.num_passes
        loader = shard_loader(
            images,
            transform,
            seed=seed,
            batch_size=plan.batch_size_per_device,
            batches=range(steps.start * passes, steps.stop * passes),
            batches_per_epoch=len(images) // plan.global_batch_size * passes,
            rank=plan.rank,
            world_size=plan.world_size,
            num_workers=num_workers,
            device=device,
        )
        return iterate(loader)
    dataset = LabelledImages(AugmentedImages(images, transform, seed))
    sampler = StepSampler(len(images), plan, seed, steps)
    return iterate(make_loader(dataset, sampler, num_workers, device))


class StepSampler(Sampler[list[tuple[int, int]]]):
    """This process's batches of all remaining steps, as (epoch, image) pairs.

    Step ``s`` reads batch ``s mod steps_per_epoch`` of the permutation that ``seed`` and the
    epoch decide, so a run can start at any step, with any number of processes, and see what an
    uninterrupted run sees.

    Args:
        num_images: Size of the data set.
        plan: How each step's batch is cut; an epoch's incomplete last batch is left out.
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


class AugmentedImages(Dataset[Any]):
    """Images under a random transform whose draws depend on (seed, epoch, image) alone.

    Args:
        images: Source.
        transform: PIL image to whatever a batch collates; draws from torch's generator.
        seed: Seed of the draws.
    """

    def __init__(
        self, images: ImageSet, transform: Callable[[Image.Image], Any], seed: int
    ) -> None:
        self.images = images
        self.transform = transform
        self.seed = seed

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, key: tuple[int, int]) -> Any:
        epoch, index = key
        with draws_of(self.seed, epoch, index):
            return self.transform(self.images[index])


class LabelledImages(Dataset[Any]):
    """Augmented images with their labels, ``UNLABELLED`` where there are none.

    Args:
        augmented: The images.
    """

    def __init__(self, augmented: AugmentedImages) -> None:
        self.augmented = augmented

    def __len__(self) -> int:
        return len(self.augmented)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Any, int]:
        labels = self.augmented.images.labels
        return self.augmented[key], UNLABELLED if labels is None else labels[key[1]]


def make_loader(
    dataset: Dataset[Any],
    batches: Iterable[list[Any]],
    num_workers: int,
    device: torch.device,
) -> DataLoader[Any]:
    """Build a loader over given batches of keys."""
    return DataLoader(
        dataset,
        batch_sampler=batches,
        num_workers=num_workers,
        pin_memory=device.type == "cuda",
        worker_init_fn=leave_signals_to_main_process,
        # Iterators draw a seed for their workers, which nothing here uses; drawn from the global
        # generator it would make a resumed run's random state differ.
        generator=torch.Generator(),
    )


def iterate(loader: DataLoader[Any]) -> Generator[Any, None, None]:
    """Iterate over a loader; a user error in a worker arrives as it was raised there.

    Closing the generator ends the loader's processes.

    Raises:
        UserError: Without the worker's traceback, which torch puts into the message.
    """
    batches = iter(loader)
    try:
        yield from batches
    except UserError as error:
        marker = f"{UserError.__name__}: "
        raise UserError(str(error).rpartition(marker)[2].strip()) from None
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        reason = str(error).partition("\n")[0]
        raise UserError(
            f"a loader process ended ({reason}); the machine may lack memory or shared memory: "
            "try fewer data.num_workers"
        ) from None
    finally:
        # Loader processes ignore signals: left to the interpreter's exit they would hang it.
        if loader.num_workers:
            batches._shutdown_workers()  # type: ignore[attr-defined]
