"""CIFAR-10 and CIFAR-100: the published python batches."""

from pathlib import Path

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
        assert config.root is not None
        raise UserError(
            f"no whole {config.name} in '{config.root}/{data_set.base_folder}'; "
            f"{_remedy(config.root, data_set.base_folder, url)}"
        ) from None
    return ImageSet.from_array(config.name, source.data, source.targets, source.classes)


def _remedy(root: Path, base_folder: str, url: str) -> str:
    """Say what to do, by what is there in place of the batch files."""
    archive = url.rpartition("/")[2]
    if root.resolve().name == base_folder:
        return (
            f"data.root should be the folder that holds '{base_folder}': '{root.resolve().parent}'"
        )
    below = sorted(root.glob(f"*/{base_folder}"))
    if below:
        return f"data.root should be the folder that holds '{base_folder}': '{below[0].parent}'"
    compressed = sorted((root / base_folder).glob("*.xz"))
    if compressed:
        return (
            f"its batch files are compressed ({compressed[0].name}, …): unpack them beside, with "
            f"unxz --keep {root / base_folder}/*.xz"
        )
    if (root / archive).is_file():
        return f"unpack '{root / archive}' there: tar -xzf {archive}"
    return (
        f"download {url} and unpack it in '{root}' (data.root), so that this folder holds the "
        "published batch files"
    )
