"""Load batches of randomly transformed images in loader processes."""

import logging
import warnings
from collections.abc import Callable, Generator, Iterable
from functools import cache
from typing import Any

import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from rsa_pretrain.data.draws import draws_of
from rsa_pretrain.data.image_set import UNLABELLED, ImageSet
from rsa_pretrain.plumbing.device import usable_cores
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.loader_processes import prepare_loader_process, why_lost
from rsa_pretrain.plumbing.stop_signal import signals_delayed

_log = logging.getLogger(__name__)

# Torch warns twice per loader, quoting a line of its own code; _note_cores warns once.
warnings.filterwarnings("ignore", "This DataLoader will create", UserWarning)


class AugmentedImages(Dataset[Any]):
    """Images under a random transform whose draws depend only on (seed, epoch, image).

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
    collate: Callable[[list[Any]], Any] | None = None,
) -> DataLoader[Any]:
    """Build a loader over given batches of keys.

    Args:
        dataset: Makes a sample from a key.
        batches: The keys.
        num_workers: Loader processes.
        device: Device the batches are sent to.
        collate: Makes a batch from samples; None stacks tensors.
    """
    return _build(dataset, num_workers, device, batch_sampler=batches, collate_fn=collate)


def make_batch_loader(
    dataset: Dataset[Any],
    batches: Iterable[Any] | None,
    num_workers: int,
    device: torch.device,
) -> DataLoader[Any]:
    """Build a loader for a data set that makes whole batches itself.

    Args:
        dataset: Makes a batch from a key, or yields batches.
        batches: The keys; None for a set that yields.
        num_workers: Loader processes.
        device: Device the batches are sent to.
    """
    return _build(
        dataset, num_workers, device, sampler=batches, batch_size=None, collate_fn=_unchanged
    )


def iterate(loader: DataLoader[Any]) -> Generator[Any, None, None]:
    """Iterate over a loader; a worker's user error is raised unchanged.

    Closing the generator ends the loader's processes.

    Raises:
        UserError: Without the worker's traceback, which torch puts into the message.
    """
    with signals_delayed():  # which would end a loader process that does not ignore them yet
        batches = iter(loader)
    try:
        yield from batches
    except UserError as error:
        marker = f"{UserError.__name__}: "
        raise UserError(str(error).rpartition(marker)[2].strip()) from None
    except RuntimeError as error:
        reason = why_lost(error)
        if reason is None:
            raise
        raise UserError(reason) from None
    finally:
        # Loader processes ignore signals: they would hang the interpreter's exit.
        if loader.num_workers:
            batches._shutdown_workers()  # type: ignore[attr-defined]


def _unchanged(batch: Any) -> Any:
    return batch


def _build(
    dataset: Dataset[Any], num_workers: int, device: torch.device, **batching: Any
) -> DataLoader[Any]:
    _note_cores(num_workers)
    return DataLoader(
        dataset,
        num_workers=num_workers,
        pin_memory=device.type == "cuda",
        worker_init_fn=prepare_loader_process,
        # Iterators draw a seed for their workers, which is unused here; drawn from the global
        # generator it would change a resumed run's random state.
        generator=torch.Generator(),
        **batching,
    )


@cache
def _note_cores(num_workers: int) -> None:
    if num_workers > (cores := usable_cores()):
        _log.warning(
            "%d loader processes share %d CPU cores: fewer (num_workers) may be faster",
            num_workers,
            cores,
        )
