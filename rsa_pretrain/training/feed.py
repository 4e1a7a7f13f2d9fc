"""Make the views of training batches, in loader processes or on the device."""

from collections.abc import Generator
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from rsa_pretrain.config import PretrainConfig
from rsa_pretrain.data.image_set import ImageSet
from rsa_pretrain.data.image_sources import PixelSources
from rsa_pretrain.data.loader import (
    AugmentedImages,
    LabelledImages,
    iterate,
    make_batch_loader,
    make_loader,
)
from rsa_pretrain.data.open_images import normalisation
from rsa_pretrain.data.shards.stream import MakeBatch, ShardSet, TransformedBatch, shard_loader
from rsa_pretrain.plumbing.device import explained_out_of_memory, to_device
from rsa_pretrain.training.batch_plan import BatchPlan, StepSampler
from rsa_pretrain.training.prefetch import Ready, prefetched
from rsa_pretrain.views.batch import BatchedViews
from rsa_pretrain.views.crops import CropImages, CroppedFiles, Crops
from rsa_pretrain.views.draws import ViewDraws, draw_views
from rsa_pretrain.views.one_image import VIEW_NAMES, Views

_MEMORY_HINT = (
    "the batched views of these images keep the whole set in it; make the views in loader "
    "processes with views.implementation=pillow"
)


def training_views(
    config: PretrainConfig,
    images: ImageSet | ShardSet,
    plan: BatchPlan,
    steps: range,
    device: torch.device,
) -> Generator[Ready, None, None]:
    """Yield this process's batches, one per forward pass.

    Draws depend only on the seed, the epoch and the image, the order on the seed and the epoch (for
    shards also on the numbers of processes): a resumed run sees the same batches as an
    uninterrupted one.

    Args:
        config: The run.
        images: Training images.
        plan: How each step's batch is split.
        steps: First step and the one after the last.
        device: Device of the views.

    Yields:
        The method's views, and int64 labels (N,), ``UNLABELLED`` where there are none.

    Raises:
        UserError: If an image cannot be read.
    """
    way = _choose_way(config, images, plan, steps, device)
    return prefetched(way.load(), way.prepare, device)


class _Way(Protocol):
    """A way to make views."""

    def load(self) -> Generator[Any, None, None]:
        """Yield batches in host memory."""

    def prepare(self, batch: Any) -> Ready:
        """Queue the operations that make a batch's views on the device."""


def _choose_way(
    config: PretrainConfig,
    images: ImageSet | ShardSet,
    plan: BatchPlan,
    steps: range,
    device: torch.device,
) -> _Way:
    if config.views.implementation == "pillow":
        return PillowViews(config, images, plan, steps, device)
    if isinstance(images, ImageSet) and isinstance(images.sources, PixelSources):
        return InMemoryViews(config, images, plan, steps, device)
    return CropViews(config, images, plan, steps, device)


class PillowViews:
    """Makes the views in loader processes, image by image."""

    def __init__(
        self,
        config: PretrainConfig,
        images: ImageSet | ShardSet,
        plan: BatchPlan,
        steps: range,
        device: torch.device,
    ) -> None:
        view_set, size = config.method.view_set, config.data.image_size
        views = Views(view_set, config.views, size, *normalisation(config.data))
        self.device = device
        if isinstance(images, ShardSet):
            transformed = TransformedBatch(views, config.seed)
            self.loader = _load_shards(images, transformed, config, plan, steps, device)
        else:
            dataset = LabelledImages(AugmentedImages(images, views, config.seed))
            sampler = StepSampler(len(images), plan, config.seed, steps)
            self.loader = make_loader(dataset, sampler, config.data.num_workers, device)

    def load(self) -> Generator[tuple[list[Tensor], Tensor], None, None]:
        """Yield views and labels."""
        return iterate(self.loader)

    def prepare(self, batch: tuple[list[Tensor], Tensor]) -> Ready:
        """Move them to the device."""
        views, labels = batch
        return [to_device(view, self.device) for view in views], to_device(labels, self.device)


class PixelBatch(NamedTuple):
    """The images in memory that make up a batch.

    Attributes:
        numbers: int64 (N,).
        draws: Parameters of their views.
        labels: int64 (N,).
    """

    numbers: Tensor
    draws: ViewDraws
    labels: Tensor


class InMemoryViews:
    """Keeps the whole set on the device as uint8 and makes the views there; nothing is loaded."""

    def __init__(
        self,
        config: PretrainConfig,
        images: ImageSet,
        plan: BatchPlan,
        steps: range,
        device: torch.device,
    ) -> None:
        self.config = config
        self.images = images
        self.sampler = StepSampler(len(images), plan, config.seed, steps)
        self.device = device
        self.views = _batched_views(config)
        with explained_out_of_memory(_MEMORY_HINT):
            self.pixels = torch.from_numpy(images.array()).to(device)

    def load(self) -> Generator[PixelBatch, None, None]:
        """Yield the numbers of a batch's images, and draw their views."""
        names = VIEW_NAMES[self.config.method.view_set]
        height, width = self.pixels.shape[1:3]
        for keys in self.sampler:
            epochs, numbers = np.array(keys, np.int64).T
            sides = np.full_like(numbers, height), np.full_like(numbers, width)
            draws = draw_views(names, self.config.views, self.config.seed, epochs, numbers, *sides)
            labels = self.images.labels_of(numbers.tolist())
            yield PixelBatch(torch.from_numpy(numbers), draws, labels)

    def prepare(self, batch: PixelBatch) -> Ready:
        """Select the images and make their views."""
        images = self.pixels[to_device(batch.numbers, self.device)].permute(0, 3, 1, 2)
        return self.views.from_images(images, batch.draws), to_device(batch.labels, self.device)


class CropViews:
    """Decodes and crops in loader processes; the device does the rest."""

    def __init__(
        self,
        config: PretrainConfig,
        images: ImageSet | ShardSet,
        plan: BatchPlan,
        steps: range,
        device: torch.device,
    ) -> None:
        names, size = VIEW_NAMES[config.method.view_set], config.data.image_size
        self.crop_images = CropImages(names, config.views, size, config.seed)
        self.device = device
        self.views = _batched_views(config)
        if isinstance(images, ShardSet):
            self.loader = _load_shards(images, self.crop_images, config, plan, steps, device)
        else:
            dataset = CroppedFiles(images, self.crop_images)
            sampler = StepSampler(len(images), plan, config.seed, steps)
            self.loader = make_batch_loader(dataset, sampler, config.data.num_workers, device)

    def load(self) -> Generator[tuple[Crops, Tensor], None, None]:
        """Yield crops and labels."""
        return iterate(self.loader)

    def prepare(self, batch: tuple[Crops, Tensor]) -> Ready:
        """Move crops and labels to the device, and make the views."""
        crops, labels = batch
        pixels = {prime: to_device(crop, self.device) for prime, crop in crops.pixels.items()}
        views = self.views.from_crops(pixels, self.crop_images.draws(crops.images))
        return views, to_device(labels, self.device)


def _batched_views(config: PretrainConfig) -> BatchedViews:
    view_set, size = config.method.view_set, config.data.image_size
    return BatchedViews(view_set, config.views, size, *normalisation(config.data))


def _load_shards(
    images: ShardSet,
    make_batch: MakeBatch,
    config: PretrainConfig,
    plan: BatchPlan,
    steps: range,
    device: torch.device,
) -> DataLoader[Any]:
    passes = plan.num_passes
    return shard_loader(
        images,
        make_batch,
        seed=config.seed,
        batch_size=plan.batch_size_per_device,
        batches=range(steps.start * passes, steps.stop * passes),
        batches_per_epoch=len(images) // plan.global_batch_size * passes,
        rank=plan.rank,
        world_size=plan.world_size,
        num_workers=config.data.num_workers,
        device=device,
    )
