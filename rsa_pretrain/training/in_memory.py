"""Make views of images that the device keeps in memory, several batches together on a GPU."""

from collections.abc import Generator
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from rsa_pretrain.config import PretrainConfig
from rsa_pretrain.data.image_set import ImageSet
from rsa_pretrain.data.kept_pixels import kept_pixels
from rsa_pretrain.data.open_images import normalisation
from rsa_pretrain.training.background import planned_ahead
from rsa_pretrain.training.batch_plan import BatchPlan, StepSampler
from rsa_pretrain.training.prefetch import Ready
from rsa_pretrain.views.batch import BatchedViews
from rsa_pretrain.views.draws import draw_views
from rsa_pretrain.views.parcel import Parcel
from rsa_pretrain.views.plan import PartPlan

# Launching the kernels of one small batch takes the CPU longer than a GPU takes to run them, so a
# block has several batches, up to a number and to the bytes of their views.
_MOST_BATCHES = 8
_MOST_BYTES = 2**27

_MEMORY_HINT = (
    "the batched views of these images keep the whole set in memory; make the views in loader "
    "processes with views.implementation=pillow"
)


def batches_together(views_bytes: int, device: torch.device) -> int:
    """Return how many batches a block has; one on a CPU, which gains nothing from more.

    Args:
        views_bytes: Size of the views of one batch.
        device: Device that makes them.
    """
    if device.type == "cpu":
        return 1
    return max(1, min(_MOST_BATCHES, _MOST_BYTES // views_bytes))


class PixelBlock(NamedTuple):
    """The images that make up a block of batches.

    Attributes:
        numbers: int64 (N,).
        parts: Plan of their views.
        labels: int64 (N,), if they are needed.
    """

    numbers: Tensor
    parts: list[PartPlan]
    labels: Tensor | None


class InMemoryViews:
    """Keeps the whole set on the device as uint8 and makes the views there; nothing is loaded.

    Args:
        config: The run.
        images: A set of ``PixelSources``.
        plan: How each step's batch is split.
        steps: First step and the one after the last.
        device: Device of the views.
        needs_labels: Whether the batches have labels.
    """

    def __init__(
        self,
        config: PretrainConfig,
        images: ImageSet,
        plan: BatchPlan,
        steps: range,
        device: torch.device,
        needs_labels: bool,
    ) -> None:
        self.config = config
        self.images = images
        self.sampler = StepSampler(len(images), plan, config.seed, steps)
        self.device = device
        self.needs_labels = needs_labels
        view_set, size = config.method.view_set, config.data.image_size
        self.views = BatchedViews(view_set, config.views, size, *normalisation(config.data))
        self.batch_size = plan.batch_size_per_device
        views_bytes = 4 * len(self.views.names) * self.batch_size * 3 * size**2
        self.batches_together = batches_together(views_bytes, device)
        self.pixels = kept_pixels(images, device, _MEMORY_HINT)

    def load(self) -> Generator[Parcel[PixelBlock], None, None]:
        """Yield blocks, with their views drawn and planned."""
        return planned_ahead(self._blocks(), self.device)

    def prepare(self, parcel: Parcel[PixelBlock]) -> list[Ready]:
        """Select the images of a block and make their views."""
        block = parcel.unpack()
        images = self.pixels[block.numbers].permute(0, 3, 1, 2)
        views = self.views.of_images(images, block.parts)
        batches = []
        for start in range(0, len(block.numbers), self.batch_size):
            rows = slice(start, start + self.batch_size)
            labels = None if block.labels is None else block.labels[rows]
            batches.append(Ready([view[rows] for view in views], labels))
        return batches

    def _blocks(self) -> Generator[Parcel[PixelBlock], None, None]:
        height, width = self.pixels.shape[1:3]
        batches = iter(self.sampler)
        while keys := list(islice(batches, self.batches_together)):
            epochs, numbers = np.array(keys, np.int64).reshape(-1, 2).T
            sides = np.full_like(numbers, height), np.full_like(numbers, width)
            names, seed = self.views.names, self.config.seed
            draws = draw_views(names, self.config.views, seed, epochs, numbers, *sides)
            parts = self.views.plan_images(draws, self.device)
            labels = self.images.labels_of(numbers.tolist()) if self.needs_labels else None
            yield Parcel(PixelBlock(torch.from_numpy(numbers), parts, labels), self.device)
