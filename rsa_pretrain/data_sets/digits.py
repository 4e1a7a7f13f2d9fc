"""scikit-learn's 1,797 digits: a fixed stratified 80 % / 20 % split."""

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from rsa_pretrain.data_config import DataConfig
from rsa_pretrain.data_sets import AnySplit
from rsa_pretrain.image_set import ImageSet


def open_split(config: DataConfig, split: AnySplit) -> ImageSet:
    """Open a split, resized to the configured side."""
    bunch = load_digits()
    train, test = train_test_split(
        np.arange(len(bunch.target)), test_size=0.2, random_state=0, stratify=bunch.target
    )
    rows = np.sort(test if split == "test" else train)
    pixels = np.round(bunch.images[rows] * (255 / 16)).astype(np.uint8)
    side = (config.image_size, config.image_size)
    images = [
        Image.fromarray(image).resize(side, Image.Resampling.BICUBIC).convert("RGB")
        for image in pixels
    ]
    names = [str(digit) for digit in range(10)]
    array = np.stack([np.asarray(image) for image in images])
    return ImageSet.from_array("digits", array, bunch.target[rows].tolist(), names)
