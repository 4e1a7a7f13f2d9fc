"""Data sets as indexable RGB images."""

from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torchvision
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from rsa_pretrain.data_config import RGB, DataConfig
from rsa_pretrain.errors import UserError
from rsa_pretrain.image_folder import find_images, read_image
from rsa_pretrain.image_set import ImageSet

Split = Literal["train", "test"]

# Mean and standard deviation of the training pixels, as published with each data set; those of
# digits are measured on its training split at 32 px.
NORMALISATION: dict[str, tuple[RGB, RGB]] = {
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    "cifar100": ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    "digits": ((0.3094, 0.3094, 0.3094), (0.3488, 0.3488, 0.3488)),
    "imagefolder": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}

_CIFAR = {
    "cifar10": (
        torchvision.datasets.CIFAR10,
        "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
    ),
    "cifar100": (
        torchvision.datasets.CIFAR100,
        "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
    ),
}


def open_images(config: DataConfig, split: Split) -> ImageSet:
    """Open one split of a data set.

    Args:
        config: Which data set, where, and how much of it.
        split: ``train``, or ``test`` (the validation folder of an imagefolder).

    Raises:
        UserError: If the files are not there or not usable; says what is expected.
    """
    opener = {"digits": _digits, "imagefolder": _image_folder}.get(config.name, _cifar)
    images = opener(config, split)
    count = config.num_train_images if split == "train" else config.num_test_images
    return images if count is None else images.balanced_subset(count, config.subset_seed)


def normalisation(config: DataConfig) -> tuple[RGB, RGB]:
    """Return mean and standard deviation for pixels in [0, 1]: the config's or the data set's."""
    if config.mean is not None and config.std is not None:
        return config.mean, config.std
    return NORMALISATION[config.name]


def _digits(config: DataConfig, split: Split) -> ImageSet:
    """Open scikit-learn's 1,797 digits: a fixed stratified 80 % / 20 % split."""
    bunch = load_digits()
    train, test = train_test_split(
        np.arange(len(bunch.target)), test_size=0.2, random_state=0, stratify=bunch.target
    )
    rows = np.sort(train if split == "train" else test)
    pixels = np.round(bunch.images[rows] * (255 / 16)).astype(np.uint8)
    side = (config.image_size, config.image_size)
    images = [
        Image.fromarray(image).resize(side, Image.Resampling.BICUBIC).convert("RGB")
        for image in pixels
    ]
    names = [str(digit) for digit in range(10)]
    array = np.stack([np.asarray(image) for image in images])
    return ImageSet.from_array("digits", array, bunch.target[rows].tolist(), names)


def _cifar(config: DataConfig, split: Split) -> ImageSet:
    data_set, url = _CIFAR[config.name]
    folder = f"{config.root}/{data_set.base_folder}"
    try:
        # torchvision checks the files' published MD5 sums before it unpickles them.
        source = data_set(str(config.root), train=split == "train", download=False)
    except RuntimeError:
        raise UserError(
            f"no whole {config.name} in '{folder}'; download {url} and unpack it in "
            f"'{config.root}' (data.root), so that this folder holds the published batch files"
        ) from None
    return ImageSet.from_array(config.name, source.data, source.targets, source.classes)


def _image_folder(config: DataConfig, split: Split) -> ImageSet:
    assert config.root is not None
    train_folder = config.root / config.train_dir
    train = partial(find_images, train_folder, "data.train_dir", config.on_broken)
    if split == "train":
        files, classes = train()
        class_names = None if None in classes else sorted({str(name) for name in classes})
    else:
        files, classes = find_images(
            config.root / config.test_dir, "data.test_dir", config.on_broken
        )
        class_names = _class_folders(train_folder)
        unknown = sorted({str(name) for name in classes} - set(class_names))
        if unknown:
            raise UserError(
                f"'{config.root / config.test_dir}' holds class folders that '{train_folder}' "
                f"lacks: {', '.join(unknown[:5])}"
            )
    labels = None
    if class_names is not None:
        number = {name: index for index, name in enumerate(class_names)}
        labels = [number[str(name)] for name in classes]
    return ImageSet("imagefolder", files, read_image, labels, class_names or [])


def _class_folders(folder: Path) -> list[str]:
    if not folder.is_dir():
        raise UserError(f"'{folder}' (data.train_dir) is not a folder")
    return sorted(
        path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")
    )
