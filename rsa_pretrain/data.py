"""Data sets as indexable RGB images, or as streams of them."""

from collections.abc import Callable
from typing import Literal, overload

from rsa_pretrain.data_config import RGB, DataConfig
from rsa_pretrain.data_sets import (
    AnySplit,
    Split,
    cifar,
    digits,
    folders,
    imagenet,
    stl10,
    tar_shards,
    tiny_imagenet,
)
from rsa_pretrain.errors import UserError
from rsa_pretrain.image_set import ImageSet
from rsa_pretrain.shards import ShardSet

__all__ = ["NORMALISATION", "AnySplit", "Split", "normalisation", "open_images"]

_CIFAR = ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))

# Mean and standard deviation of the training pixels, as published with each data set; those of
# digits are measured on its training split at 32 px.
NORMALISATION: dict[str, tuple[RGB, RGB]] = {
    "cifar10": _CIFAR,
    "cifar100": _CIFAR,
    "digits": ((0.3094, 0.3094, 0.3094), (0.3488, 0.3488, 0.3488)),
    "imagefolder": _IMAGENET,
    "imagenet": _IMAGENET,
    "imagenet100": _IMAGENET,
    "stl10": ((0.4408, 0.4279, 0.3867), (0.2682, 0.2610, 0.2686)),
    "tiny_imagenet": ((0.4802, 0.4481, 0.3975), (0.2302, 0.2265, 0.2262)),
    "webdataset": _IMAGENET,
}

_OPENERS: dict[str, Callable[[DataConfig, AnySplit], ImageSet]] = {
    "cifar10": cifar.open_split,
    "cifar100": cifar.open_split,
    "digits": digits.open_split,
    "imagefolder": folders.open_split,
    "imagenet": imagenet.open_split,
    "imagenet100": imagenet.open_split,
    "stl10": stl10.open_split,
    "tiny_imagenet": tiny_imagenet.open_split,
    "webdataset": tar_shards.open_split,
}


@overload
def open_images(config: DataConfig, split: Split) -> ImageSet: ...
@overload
def open_images(config: DataConfig, split: Literal["pretrain"]) -> ImageSet | ShardSet: ...
def open_images(config: DataConfig, split: AnySplit) -> ImageSet | ShardSet:
    """Open one split of a data set.

    Args:
        config: Which data set, where, and how much of it.
        split: ``train``; ``test`` (the validation images where the test labels are secret); or
            ``pretrain``, the training images with, for STL-10, the unlabelled ones, and for
            webdataset as a stream.

    Raises:
        UserError: If the files are not there or not usable; says what is expected.
    """
    count = config.num_test_images if split == "test" else config.num_train_images
    if config.name == "webdataset" and split == "pretrain":
        if count is not None:
            raise UserError(
                f"data.num_train_images {count} has no meaning for a stream of shards; name fewer "
                "shards in data.shards"
            )
        return tar_shards.open_stream(config)
    images = _OPENERS[config.name](config, split)
    return images if count is None else images.balanced_subset(count, config.subset_seed)


def normalisation(config: DataConfig) -> tuple[RGB, RGB]:
    """Return mean and standard deviation for pixels in [0, 1]: the config's or the data set's."""
    if config.mean is not None and config.std is not None:
        return config.mean, config.std
    return NORMALISATION[config.name]
