"""Make the views of training batches, in loader processes or on the device."""

from collections.abc import Generator
from contextlib import closing
from typing import Any, NamedTuple, Protocol

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
from rsa_pretrain.plumbing.device import to_device
from rsa_pretrain.training.background import planned_ahead
from rsa_pretrain.training.batch_plan import BatchPlan, StepSampler
from rsa_pretrain.training.in_memory import InMemoryViews
from rsa_pretrain.training.prefetch import Ready, Timed, prefetched
from rsa_pretrain.views.batch import BatchedViews
from rsa_pretrain.views.crops import CropImages, CroppedFiles
from rsa_pretrain.views.one_image import VIEW_NAMES, Views
from rsa_pretrain.views.parcel import Parcel
from rsa_pretrain.views.plan import PartPlan


def training_views(
    config: PretrainConfig,
    images: ImageSet | ShardSet,
    plan: BatchPlan,
    steps: range,
    device: torch.device,
    needs_labels: bool,
    timed: Timed,
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
        needs_labels: Whether the method reads the labels.
        timed: Passes an iterator on and measures the wait for each item.

    Yields:
        The method's views, and labels if it needs them, ``UNLABELLED`` where there are none.

    Raises:
        UserError: If an image cannot be read.
    """
    way = _choose_way(config, images, plan, steps, device, needs_labels)
    return prefetched(way.load(), way.prepare, device, timed)


class _Way(Protocol):
    """A way to make views."""

    def load(self) -> Generator[Any, None, None]:
        """Yield blocks of batches in host memory."""

    def prepare(self, block: Any) -> list[Ready]:
        """Queue the operations that make the block's batches on the device."""


def _choose_way(
    config: PretrainConfig,
    images: ImageSet | ShardSet,
    plan: BatchPlan,
    steps: range,
    device: torch.device,
    needs_labels: bool,
) -> _Way:
    if config.views.implementation == "pillow":
        return PillowViews(config, images, plan, steps, device, needs_labels)
    if isinstance(images, ImageSet) and isinstance(images.sources, PixelSources):
        return InMemoryViews(config, images, plan, steps, device, needs_labels)
    return CropViews(config, images, plan, steps, device, needs_labels)


class PillowViews:
    """Makes the views in loader processes, image by image."""

    def __init__(
        self,
        config: PretrainConfig,
        images: ImageSet | ShardSet,
        plan: BatchPlan,
        steps: range,
        device: torch.device,
        needs_labels: bool,
    ) -> None:
        view_set, size = config.method.view_set, config.data.image_size
        views = Views(view_set, config.views, size, *normalisation(config.data))
        self.device = device
        self.needs_labels = needs_labels
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

    def prepare(self, batch: tuple[list[Tensor], Tensor]) -> list[Ready]:
        """Move them to the device."""
        views, labels = batch
        on_device = [to_device(view, self.device) for view in views]
        return [Ready(on_device, to_device(labels, self.device) if self.needs_labels else None)]


class CropPlan(NamedTuple):
    """Plan of the views of a batch of crops; its labels, int64 (N,), if they are needed."""

    parts: list[PartPlan]
    labels: Tensor | None


class CropBatch(NamedTuple):
    """The crops of a batch by prime, uint8 (N, 3, S, S), and its plan."""

    pixels: dict[str, Tensor]
    plan: Parcel[CropPlan]


class CropViews:
    """Decodes and crops in loader processes; the device does the rest."""

    def __init__(
        self,
        config: PretrainConfig,
        images: ImageSet | ShardSet,
        plan: BatchPlan,
        steps: range,
        device: torch.device,
        needs_labels: bool,
    ) -> None:
        view_set, size = config.method.view_set, config.data.image_size
        names = VIEW_NAMES[view_set]
        self.crop_images = CropImages(names, config.views, size, config.seed)
        self.device = device
        self.needs_labels = needs_labels
        self.views = BatchedViews(view_set, config.views, size, *normalisation(config.data))
        if isinstance(images, ShardSet):
            self.loader = _load_shards(images, self.crop_images, config, plan, steps, device)
        else:
            dataset = CroppedFiles(images, self.crop_images)
            sampler = StepSampler(len(images), plan, config.seed, steps)
            self.loader = make_batch_loader(dataset, sampler, config.data.num_workers, device)

    def load(self) -> Generator[CropBatch, None, None]:
        """Yield crops, with their views planned."""
        return planned_ahead(self._batches(), self.device)

    def prepare(self, batch: CropBatch) -> list[Ready]:
        """Move crops to the device, and make the views."""
        pixels = {prime: to_device(crop, self.device) for prime, crop in batch.pixels.items()}
        plan = batch.plan.unpack()
        return [Ready(self.views.of_crops(pixels, plan.parts), plan.labels)]

    def _batches(self) -> Generator[CropBatch, None, None]:
        with closing(iterate(self.loader)) as batches:
            for crops, labels in batches:
                draws = self.crop_images.draws(crops.images)
                parts = self.views.plan_crops(draws, self.device)
                plan = CropPlan(parts, labels if self.needs_labels else None)
                yield CropBatch(crops.pixels, Parcel(plan, self.device))


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
