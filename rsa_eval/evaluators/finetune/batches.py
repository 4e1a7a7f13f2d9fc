"""Bring the images to train on: each once per epoch, in batches of almost one size."""

import math
from collections.abc import Generator, Iterator
from contextlib import closing

import numpy as np
from torch import Tensor
from torchvision.transforms import v2

from rsa_eval.evaluators.finetune.settings import FinetuneConfig, TuningConfig
from rsa_eval.features.share import own_share
from rsa_eval.features.subject import Subject
from rsa_pretrain.data.image_set import ImageSet
from rsa_pretrain.data.loader import AugmentedImages, LabelledImages, iterate, make_loader
from rsa_pretrain.plumbing.distributed import world_size
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.views.one_image import to_normalised_tensor, weak_augmentation

# One item per training step: this process's images, (n, 3, S, S), their labels, int64 (n,), and the
# size of the whole batch.
Steps = Generator[tuple[Tensor, Tensor, int], None, None]


class EvenOrder:
    """Order of the images: each once per epoch, in batches that differ by at most one image.

    A small last batch would harm BatchNorm's statistics or be too small to compute any.

    Args:
        num_images: Labelled images.
        tuning: Epochs or steps, and largest batch.
        seed: Decides, with the epoch, the permutation.

    Raises:
        UserError: If a process would get fewer than two images.
    """

    def __init__(self, num_images: int, tuning: TuningConfig, seed: int) -> None:
        self.num_images = num_images
        self.steps_per_epoch = math.ceil(num_images / tuning.batch_size)
        self.num_steps = tuning.num_steps(self.steps_per_epoch)
        self._seed = seed
        smallest = num_images // self.steps_per_epoch // world_size()
        if smallest < 2:
            raise UserError(
                f"{num_images} labelled images in batches of at most {tuning.batch_size} leave a "
                f"process {smallest} per step, and BatchNorm needs 2; use fewer processes, more "
                "labels (subset; null takes all) or another tuning.batch_size"
            )

    def num_images_in(self, num_batches: int) -> int:
        """Return the number of images in the first batches of an epoch."""
        smallest, larger = divmod(self.num_images, self.steps_per_epoch)
        return num_batches * smallest + min(num_batches, larger)

    def shares(self, first_step: int) -> Iterator[tuple[list[tuple[int, int]], int]]:
        """Yield this process's (epoch, image) pairs of each step, and the whole batch's size."""
        for step in range(first_step, self.num_steps):
            epoch, batch = divmod(step, self.steps_per_epoch)
            if batch == 0 or step == first_step:
                order = np.random.default_rng([self._seed, epoch]).permutation(self.num_images)
                batches = np.array_split(order, self.steps_per_epoch)
            images = batches[batch]
            own = own_share().rows(len(images))
            yield [(epoch, int(image)) for image in images[own.start : own.stop]], len(images)


def training_steps(
    subject: Subject,
    images: ImageSet,
    order: EvenOrder,
    first_step: int,
    config: FinetuneConfig,
) -> Steps:
    """Yield this process's batches, with fresh augmentation each epoch.

    Args:
        subject: Supplies the pixel statistics.
        images: Labelled images.
        order: Images of each step.
        first_step: Step to start from.
        config: The evaluation.
    """
    data = config.data
    view = weak_augmentation(config.tuning.train_view, data.image_size, data.eval_interpolation)
    transform = v2.Compose([view, to_normalised_tensor(subject.mean, subject.std)])
    loader = make_loader(
        LabelledImages(AugmentedImages(images, transform, config.seed)),
        (keys for keys, _ in order.shares(first_step)),
        data.num_workers,
        subject.device,
    )
    with closing(iterate(loader)) as loaded:
        for (views, labels), (_, size) in zip(loaded, order.shares(first_step), strict=True):
            yield views, labels, size
