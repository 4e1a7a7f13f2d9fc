"""Set training images aside for choosing settings: published ones, or a drawn share."""

import numpy as np

from rsa_eval.evaluators.shared.held_out import held_out_rows, published_rows
from rsa_eval.evaluators.shared.subsets import Rows
from rsa_pretrain.data.image_set import ImageSet
from rsa_pretrain.data.open_images import open_images
from rsa_pretrain.data.sets import data_set
from rsa_pretrain.data.settings import DataConfig


def publishes_validation(data: DataConfig) -> bool:
    """Return whether the data set's publisher sets training images aside for validation."""
    return "val" in data_set(data.name).counts


def validation_rows(
    images: ImageSet, data: DataConfig, percent: float, seed: int, *, key: str
) -> Rows:
    """Return the indices of the images to choose settings on.

    Args:
        images: Labelled training images, or some of them.
        data: The data set: where it publishes a validation split, those of its images.
        percent: Elsewhere, the share of each class to draw.
        seed: Of the draw.
        key: Name of the setting for the share, for errors.

    Returns:
        Indices in increasing order; others are left to train on.

    Raises:
        UserError: If none would be for validation, or none to train on.
    """
    if not publishes_validation(data):
        labels = np.asarray(images.require_labels())
        return held_out_rows(labels, percent, seed, key=key, unit=1)
    return published_rows(images, open_images(data, "val"))
