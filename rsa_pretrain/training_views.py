"""How views reach the training step: drawn in loader processes."""

from collections.abc import Generator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from rsa_pretrain.augment import Views
from rsa_pretrain.batch_plan import BatchPlan, StepSampler
from rsa_pretrain.config import PretrainConfig
from rsa_pretrain.data import normalisation
from rsa_pretrain.image_set import ImageSet
from rsa_pretrain.loader import (
    AugmentedImages,
    LabelledImages,
    iterate,
    make_loader,
)
from rsa_pretrain.prefetch import Ready, prefetched
from rsa_pretrain.shards import MakeBatch, ShardSet, TransformedImages, shard_loader


def training_views(
    config: PretrainConfig,
    images: ImageSet | ShardSet,
    plan: BatchPlan,
    steps: range,
    device: torch.device,
) -> Generator[Ready, None, None]:
    """Bring what this process trains on, one pass after the other.

    Draws depend on the seed, the epoch and the image alone, the order on the seed and the epoch (of
    shards also on the numbers of processes): a run that starts late sees what one that never
    stopped sees.

    Args:
        config: The run.
        images: Training images.
        plan: How each step's batch is cut.
        steps: First step and the one after the last.
        device: Where the views go.

    Yields:
        The recipe's views, and int64 labels (N,), ``UNLABELLED`` where there are none.

    Raises:
        UserError: If an image cannot be read.
    """
    pillow = PillowViews(config, images, plan, steps, device)
    return prefetched(pillow.load(), pillow.prepare, device)


class PillowViews:
    """The views are made by loader processes, image by image."""

    def __init__(
        self,
        config: PretrainConfig,
        images: ImageSet | ShardSet,
        plan: BatchPlan,
        steps: range,
        device: torch.device,
    ) -> None:
        recipe, size = config.method.view_recipe, config.data.image_size
        views = Views(recipe, config.views, size, *normalisation(config.data))
        self.device = device
        if isinstance(images, ShardSet):
            transformed = TransformedImages(views, config.seed)
            self.loader = _load_shards(images, transformed, config, plan, steps, device)
        else:
            dataset = LabelledImages(AugmentedImages(images, views, config.seed))
            sampler = StepSampler(len(images), plan, config.seed, steps)
            self.loader = make_loader(dataset, sampler, config.data.num_workers, device)

    def load(self) -> Generator[tuple[list[Tensor], Tensor], None, None]:
        """Yield views and labels."""
        return iterate(self.loader)

    def prepare(self, batch: tuple[list[Tensor], Tensor]) -> Ready:
        """Move them."""
        views, labels = batch
        return [_moved(view, self.device) for view in views], _moved(labels, self.device)


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


def _moved(tensor: Tensor, device: torch.device) -> Tensor:
    """Queue a copy to the device; pages that are not pinned would have to be waited for."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor
