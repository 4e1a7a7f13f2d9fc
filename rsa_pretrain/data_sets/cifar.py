"""CIFAR-10 and CIFAR-100: the published python batches."""

import torchvision

from rsa_pretrain.data_config import DataConfig
from rsa_pretrain.data_sets import AnySplit
from rsa_pretrain.errors import UserError
from rsa_pretrain.image_set import ImageSet

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


def open_split(config: DataConfig, split: AnySplit) -> ImageSet:
    """Open a split from ``root/cifar-10-batches-py/`` or ``root/cifar-100-python/``."""
    data_set, url = _CIFAR[config.name]
    try:
        # torchvision checks the files' published MD5 sums before it unpickles them.
        source = data_set(str(config.root), train=split != "test", download=False)
    except RuntimeError:
        raise UserError(
            f"no whole {config.name} in '{config.root}/{data_set.base_folder}'; download {url} and "
            f"unpack it in '{config.root}' (data.root), so that this folder holds the published "
            "batch files"
        ) from None
    return ImageSet.from_array(config.name, source.data, source.targets, source.classes)
