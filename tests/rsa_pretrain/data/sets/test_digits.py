"""scikit-learn's digits, as they are and scattered."""

import numpy as np
import pytest

from rsa_pretrain.data.open_images import open_images
from rsa_pretrain.data.sets import data_set
from rsa_pretrain.data.settings import DataConfig


def images(name, split, side=16):
    """A split of a set at a side."""
    return open_images(DataConfig(name=name, image_size=side), split)


@pytest.mark.parametrize("split", ["train", "test"])
def test_scattered_digits_are_the_digits_elsewhere(split):
    """The same digits in the same order, of 70 to 100 % of the side, in several places."""
    plain, scattered = (images(name, split) for name in ("digits", "scattered_digits"))
    assert scattered.labels == plain.labels
    array = scattered.array()
    assert array.shape == plain.array().shape
    assert (array[..., 0] == array[..., 1]).all()
    lit = array[..., 0] > 0
    tops = lit.any(axis=2).argmax(axis=1)
    assert set(tops) >= {0, 1, 2, 3}
    brightness = array.mean(axis=(1, 2, 3)) / plain.array().mean(axis=(1, 2, 3))
    assert 0.6**2 < brightness.min() < 0.55
    assert brightness.max() == pytest.approx(1)


def test_scattered_digits_are_the_same_everywhere():
    """Draws come from a fixed seed; the test images' from another than the training images'."""
    train, test = (images("scattered_digits", split) for split in ("train", "test"))
    assert train.fingerprint().startswith("ad7fe0e4c4")
    assert train.fingerprint() == images("scattered_digits", "train").fingerprint()
    assert not np.array_equal(train.array()[: len(test)], test.array())


@pytest.mark.parametrize("name", ["digits", "scattered_digits"])
def test_normalisation_is_that_of_the_training_split(name):
    """Measured at 32 px."""
    pixels = images(name, "train", 32).array() / 255
    mean, std = data_set(name).normalisation
    assert mean == pytest.approx([pixels.mean()] * 3, abs=5e-5)
    assert std == pytest.approx([pixels.std()] * 3, abs=5e-5)
