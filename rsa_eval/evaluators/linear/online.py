"""Yield the features of freshly augmented images, those of several steps from one forward pass."""

from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.transforms import v2

from rsa_eval.evaluators.linear.batches import ProbeBatches, ReadOrder, StepBlock
from rsa_eval.evaluators.linear.settings import LinearConfig
from rsa_eval.features.batch_size import batch_size_on
from rsa_eval.features.forward import feature_width, forward_frozen
from rsa_eval.features.subject import Subject
from rsa_pretrain.data.image_set import ImageSet
from rsa_pretrain.data.image_sources import PixelSources
from rsa_pretrain.data.kept_pixels import kept_pixels
from rsa_pretrain.data.loader import AugmentedImages, LabelledImages, iterate, make_loader
from rsa_pretrain.plumbing.device import to_device
from rsa_pretrain.plumbing.distributed import world_size
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.views.batch import BatchedViews
from rsa_pretrain.views.draws import draw_views
from rsa_pretrain.views.one_image import VIEW_NAMES, to_normalised_tensor, weak_augmentation
from rsa_pretrain.views.settings import ViewsConfig


def steps_per_forward(device: torch.device, backbone: nn.Module, config: LinearConfig) -> int:
    """Return how many steps' images one forward pass of the frozen backbone takes.

    A GPU takes as many as extraction does, in whole steps. A CPU gains nothing by several.

    Args:
        device: Device of the evaluation.
        backbone: The network.
        config: The evaluation.
    """
    if device.type != "cuda":
        return 1
    share = -(-config.probe.batch_size // world_size())
    return max(1, batch_size_on(device, backbone, config) // share)


def check_views(images: ImageSet, config: LinearConfig) -> None:
    """Refuse batched views of images that are not held in memory.

    Raises:
        UserError: If they are requested.
    """
    if config.probe.views == "batched" and not isinstance(images.sources, PixelSources):
        raise UserError(
            f"probe.views=batched needs a set of small images, which is kept in memory, such as "
            f"cifar10 or tiny_imagenet; '{images.name}' is read from files: set probe.views=pillow"
        )


def online_batches(
    subject: Subject,
    images: ImageSet,
    order: ReadOrder,
    scaling: Callable[[Tensor], Tensor],
    config: LinearConfig,
    num_steps: int,
) -> ProbeBatches:
    """Return batches of features of images with fresh augmentation each epoch.

    Args:
        subject: Backbone, frozen and in eval mode, on its device, and its pixel statistics.
        images: Labelled training images.
        order: Images of each step.
        scaling: Applied to the features.
        config: The evaluation.
        num_steps: Steps whose images are in one forward pass.

    Raises:
        UserError: If the images are unlabelled, or do not fit into the GPU's memory.
    """
    device, backbone = subject.device, subject.backbone
    make_views = LoadedViews if config.probe.views == "pillow" else ResidentViews
    views: _ProbeViews = make_views(subject, images, config)
    width = feature_width(backbone, config)

    def batches(first_step: int) -> Generator[tuple[Tensor, Tensor], None, None]:
        to_load = (block for block in order.blocks(first_step, num_steps) if len(block.images))
        with closing(views.load(to_load)) as loaded:
            for block in order.blocks(first_step, num_steps):
                features = torch.empty(0, width, device=device)
                labels = torch.empty(0, dtype=torch.int64, device=device)
                if len(block.images):
                    batch, labels = next(loaded)
                    features = scaling(forward_frozen(backbone, batch, config))
                    labels = labels.to(device, non_blocking=True)
                parts = (torch.split(both, block.sizes) for both in (features, labels))
                yield from zip(*parts, strict=True)

    return batches


class _ProbeViews(Protocol):
    """A way to make the views."""

    def load(self, blocks: Iterable[StepBlock]) -> Generator[tuple[Tensor, Tensor], None, None]:
        """Yield each block's normalised views, float32 (n, 3, S, S), and labels, int64 (n,)."""


class LoadedViews:
    """Makes the views image by image in loader processes, in pinned memory for a GPU."""

    def __init__(self, subject: Subject, images: ImageSet, config: LinearConfig) -> None:
        images.require_labels()
        data = config.data
        view = weak_augmentation(config.probe.train_view, data.image_size, data.eval_interpolation)
        transform = v2.Compose([view, to_normalised_tensor(subject.mean, subject.std)])
        self.dataset = LabelledImages(AugmentedImages(images, transform, config.seed))
        self.num_workers = data.num_workers
        self.device = subject.device

    def load(self, blocks: Iterable[StepBlock]) -> Generator[tuple[Tensor, Tensor], None, None]:
        """Yield views and labels."""
        keys = (
            list(zip(block.epochs.tolist(), block.images.tolist(), strict=True)) for block in blocks
        )
        return iterate(make_loader(self.dataset, keys, self.num_workers, self.device))


class ResidentViews:
    """Keeps the whole set on the device as uint8 and makes the views there; nothing is loaded."""

    def __init__(self, subject: Subject, images: ImageSet, config: LinearConfig) -> None:
        self.device = subject.device
        self.config = ViewsConfig(weak=config.probe.train_view)
        self.seed = config.seed
        size = config.data.image_size
        self.views = BatchedViews("weak", self.config, size, subject.mean, subject.std)
        self.labels = torch.tensor(images.require_labels(), device=self.device)
        advice = "set probe.views=pillow, which keeps no images in memory"
        self.pixels = kept_pixels(images, self.device, advice)

    def load(self, blocks: Iterable[StepBlock]) -> Generator[tuple[Tensor, Tensor], None, None]:
        """Draw, select and make the views; the CPU does not wait for a GPU."""
        names = VIEW_NAMES["weak"]
        height, width = self.pixels.shape[1:3]
        for block in blocks:
            numbers = block.images
            sides = np.full_like(numbers, height), np.full_like(numbers, width)
            draws = draw_views(names, self.config, self.seed, block.epochs, numbers, *sides)
            rows = to_device(torch.from_numpy(numbers), self.device)
            pixels = self.pixels.index_select(0, rows).permute(0, 3, 1, 2)
            (views,) = self.views.from_images(pixels, draws)
            yield views, self.labels.index_select(0, rows)
