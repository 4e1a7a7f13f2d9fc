"""Yield a probe's batches, in an order independent of processes and resumable at any step."""

from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torchvision.transforms import v2

from rsa_eval.evaluators.linear.settings import LinearConfig
from rsa_eval.features.forward import feature_width, forward_frozen
from rsa_eval.features.labelled import LabelledFeatures
from rsa_eval.features.subject import Subject
from rsa_pretrain.data.image_set import ImageSet
from rsa_pretrain.data.loader import AugmentedImages, iterate, make_loader
from rsa_pretrain.plumbing.distributed import rank, world_size
from rsa_pretrain.views.one_image import to_normalised_tensor, weak_augmentation

# From a first step to one item per training step: this process's share of features, float32 (n, D),
# and labels, int64 (n,), on the probe's device.
ProbeBatches = Callable[[int], Generator[tuple[Tensor, Tensor], None, None]]


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
        for _, images in order.shares(first_step):
            rows = torch.from_numpy(images).to(device)
            yield scaling(features.index_select(0, rows)), labels.index_select(0, rows)

    return batches


def online_batches(
    subject: Subject,
    images: ImageSet,
    order: ReadOrder,
    scaling: Callable[[Tensor], Tensor],
    config: LinearConfig,
) -> ProbeBatches:
    """Return batches of features of images with fresh augmentation each epoch.

    Args:
        subject: Backbone, frozen and in eval mode, on its device, and its pixel statistics.
        images: Labelled training images.
        order: Images of each step.
        scaling: Applied to the features.
        config: The evaluation.

    Raises:
        UserError: If the images are unlabelled.
    """
    device = subject.device
    labels = torch.tensor(images.require_labels())
    data = config.data
    view = weak_augmentation(config.probe.train_view, data.image_size, data.eval_interpolation)
    transform = v2.Compose([view, to_normalised_tensor(subject.mean, subject.std)])
    dataset = AugmentedImages(images, transform, config.seed)
    width = feature_width(subject.backbone, config)

    def batches(first_step: int) -> Generator[tuple[Tensor, Tensor], None, None]:
        keys = (
            [(epoch, image) for image in share.tolist()]
            for epoch, share in order.shares(first_step)
            if len(share)
        )
        loader = make_loader(dataset, keys, data.num_workers, device)
        with closing(iterate(loader)) as loaded:
            for _, share in order.shares(first_step):
                features = torch.empty(0, width, device=device)
                if len(share):
                    features = scaling(forward_frozen(subject.backbone, next(loaded), config))
                yield features, labels[torch.from_numpy(share)].to(device)

    return batches
