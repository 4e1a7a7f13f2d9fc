"""The order in which training reads images, and the loader that brings them."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, Sampler

from rsa_pretrain.errors import UserError
from rsa_pretrain.image_set import ImageSet
from rsa_pretrain.stop_signal import leave_signals_to_main_process


class StepSampler(Sampler[list[tuple[int, int]]]):
    """The batches of all remaining steps, as (epoch, image) pairs.

    Step ``s`` reads batch ``s mod steps_per_epoch`` of the permutation that ``seed`` and the
    epoch decide, so a run can start at any step and see what an uninterrupted run sees.

    Args:
        num_images: Size of the data set.
        batch_size: Images per step; an epoch's incomplete last batch is left out.
        seed: Seed of the permutations.
        steps: First step and the one after the last.
    """

    def __init__(self, num_images: int, batch_size: int, seed: int, steps: range) -> None:
        self.num_images = num_images
        self.batch_size = batch_size
        self.seed = seed
        self.steps = steps

    def __len__(self) -> int:
        return len(self.steps)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        steps_per_epoch = self.num_images // self.batch_size
        order: list[int] = []
        current_epoch = None
        for step in self.steps:
            epoch, batch = divmod(step, steps_per_epoch)
            if epoch != current_epoch:
                generator = np.random.default_rng([self.seed, epoch])
                order = generator.permutation(self.num_images).tolist()
                current_epoch = epoch
            start = batch * self.batch_size
            yield [(epoch, image) for image in order[start : start + self.batch_size]]


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
        sequence = np.random.SeedSequence([self.seed, epoch, index])
        # The CPU generator alone: torch.manual_seed also visits every accelerator.
        generator = torch.default_generator
        before = generator.get_state()
        generator.manual_seed(int(sequence.generate_state(1, np.uint64)[0]))
        try:
            return self.transform(self.images[index])
        finally:
            generator.set_state(before)


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


def iterate(loader: DataLoader[Any]) -> Iterator[Any]:
    """Iterate over a loader; a user error in a worker arrives as it was raised there.

    Raises:
        UserError: Without the worker's traceback, which torch puts into the message.
    """
    try:
        yield from loader
    except UserError as error:
        marker = f"{UserError.__name__}: "
        raise UserError(str(error).rpartition(marker)[2].strip()) from None
