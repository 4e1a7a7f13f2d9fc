"""The official batches of CIFAR-10, unpacked once for all that reads them."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.images import CIFAR_BATCHES, small_images, unpack_cifar
from rsa_pretrain.data.open_images import open_images
from rsa_pretrain.data.settings import DataConfig

pytestmark = pytest.mark.real_data


@pytest.fixture(scope="module")
def unpacked(rsa_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that RSA_DATA may name: the batches as they are downloaded, not compressed."""
    folder = tmp_path_factory.mktemp("data")
    unpack_cifar(rsa_data / "cifar10" / CIFAR_BATCHES, folder / "cifar10" / CIFAR_BATCHES)
    return folder


def test_the_official_batches_open(unpacked: Path) -> None:
    """A part has as many images of each class; the first test image is the well-known cat."""
    root = unpacked / "cifar10"
    config = DataConfig(name="cifar10", root=root, image_size=32, num_train_images=500)
    train, test = open_images(config, "train"), open_images(config, "test")
    assert np.bincount(train.require_labels()).tolist() == [50] * 10
    assert len(test) == 10_000
    assert test.class_names[test.require_labels()[0]] == "cat"


def test_benchmarks_take_them_where_there_are_any(
    unpacked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twenty, two of each class, alone in memory."""
    monkeypatch.setenv("RSA_DATA", str(unpacked))
    images = small_images(20, 0)
    assert images.name == "cifar10"
    assert np.bincount(images.require_labels()).tolist() == [2] * 10
    assert images.array().shape == (20, 32, 32, 3)
