"""scikit-learn's 1,797 digits: a fixed stratified 80 % / 20 % split."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rsa_pretrain.data.sets.base import AnySplit, Counts, DataSet

if TYPE_CHECKING:
    from rsa_pretrain.data.image_set import ImageSet
    from rsa_pretrain.data.settings import DataConfig


def _open(config: DataConfig, split: AnySplit) -> ImageSet:
    """Open a split, resized to the configured side."""
    import numpy as np
    from PIL import Image
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    from rsa_pretrain.data.image_set import ImageSet

    bunch = load_digits()
    train, test = train_test_split(
        np.arange(len(bunch.target)), test_size=0.2, random_state=0, stratify=bunch.target
    )
    rows = np.sort(test if split == "test" else train)
    pixels = np.round(bunch.images[rows] * (255 / 16)).astype(np.uint8)
    side = (config.image_size, config.image_size)
    grey = [Image.fromarray(image).resize(side, Image.Resampling.BICUBIC) for image in pixels]
    array = np.stack([np.asarray(image) for image in grey])[..., None].repeat(3, axis=-1)
    names = [str(digit) for digit in range(10)]
    return ImageSet.from_array("digits", array, bunch.target[rows].tolist(), names)


def _download(root: Path, url: str | None) -> None:
    """Do nothing: the images come with scikit-learn."""


DIGITS = DataSet(
    name="digits",
    label="Digits",
    # Measured on the training split at 32 px.
    normalisation=((0.3094, 0.3094, 0.3094), (0.3488, 0.3488, 0.3488)),
    open=_open,
    download=_download,
    counts={"train": Counts(1_437, 10), "test": Counts(360, 10)},
    location=(),
    is_pixels=True,
)
