"""Open data sets as indexable RGB images, or as streams of them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal, overload

from rsa_pretrain.data.sets import DATA_SETS, AnySplit, Counts, Split, data_set
from rsa_pretrain.data.settings import RGB, DataConfig
from rsa_pretrain.plumbing.errors import UserError

if TYPE_CHECKING:
    from rsa_pretrain.data.image_set import ImageSet
    from rsa_pretrain.data.shards.stream import ShardSet

__all__ = ["AnySplit", "Split", "is_present", "normalisation", "open_images", "published_counts"]


@overload
def open_images(config: DataConfig, split: Split | Literal["val"]) -> ImageSet: ...
@overload
def open_images(config: DataConfig, split: Literal["pretrain"]) -> ImageSet | ShardSet: ...
def open_images(config: DataConfig, split: AnySplit) -> ImageSet | ShardSet:
    """Open one split of a data set.

    Args:
        config: Which data set, where, and how much of it.
        split: ``train``; ``test`` (the validation images where the test labels are secret); or
            ``pretrain``, the training images with, for STL-10, the unlabelled ones, and for
            webdataset as a stream. ``val`` is the published validation split: training images,
            of which a subset by number would not be part of a subset of ``train``, so that all
            are returned whatever ``num_train_images`` says.

    Raises:
        UserError: If the files are missing or unusable, or there is no published validation split;
            says what is expected.
    """
    from rsa_pretrain.data.image_set import ImageSet

    chosen = data_set(config.name)
    if split == "val" and "val" not in chosen.counts:
        having = [entry.name for entry in DATA_SETS if "val" in entry.counts]
        raise UserError(
            f"{chosen.name} has no published validation split (those of {', '.join(having)} have); "
            "hold out some of its training images instead"
        )
    images = chosen.open(config, split)
    count = config.num_test_images if split == "test" else config.num_train_images
    if count is None or split == "val":
        return images
    assert isinstance(images, ImageSet), "a stream cannot be subset"
    return images.balanced_subset(count, config.subset_seed)


def normalisation(config: DataConfig) -> tuple[RGB, RGB]:
    """Return mean and standard deviation for pixels in [0, 1]: the config's or the data set's."""
    if config.mean is not None and config.std is not None:
        return config.mean, config.std
    return data_set(config.name).normalisation


def published_counts(config: DataConfig, split: AnySplit) -> Counts:
    """Return a split's published numbers; all None if none are published."""
    counts = data_set(config.name).counts
    found = counts.get(split, Counts())
    if split == "pretrain" and split not in counts:
        found = counts.get("train", Counts())
    if config.class_list is not None:
        return replace(found, images=None, classes=None)
    return found


def is_present(config: DataConfig) -> bool:
    """Return whether the folder of a data set exists; not whether it is complete."""
    folders = data_set(config.name).folders or (config.train_dir,)
    root = config.root
    return root is not None and any((root / folder).is_dir() for folder in folders)
