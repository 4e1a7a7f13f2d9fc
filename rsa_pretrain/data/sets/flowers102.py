"""Oxford 102 Flowers: photographs of 102 kinds of flowers (Nilsback and Zisserman 2008).

The official split has 1,020 training, 1,020 validation and 6,149 test images, 10, 10 and at least
20 a class; ``train`` is the former two, 2,040, as in Kornblith et al. 2019, Table 1, where accuracy
is the mean over classes. ``setid.mat`` numbers the images of each part. Names of the classes are
torchvision's.
"""

from __future__ import annotations

from pathlib import Path

from rsa_pretrain.data.sets.base import Counts
from rsa_pretrain.data.sets.listed import ListedPart, Listing, listed_set
from rsa_pretrain.data.sets.matlab import read_matlab
from rsa_pretrain.data.sets.published_tree import whole_numbers
from rsa_pretrain.plumbing.fetch import Bundle, BundledFile

_ADDRESS = "https://www.robots.ox.ac.uk/~vgg/data/flowers/102/"
# Addresses, checksums and the name of the folder as in torchvision.datasets.Flowers102.
FLOWERS102_FILES = Bundle(
    "flowers-102",
    (
        BundledFile(f"{_ADDRESS}102flowers.tgz", "52808999861908f626f3c1f4e79d11fa"),
        BundledFile(f"{_ADDRESS}imagelabels.mat", "e0620be6f572b9609742df49c70aed4d"),
        BundledFile(f"{_ADDRESS}setid.mat", "a5357ecc9cb78c4bef273ce3793fc85c"),
    ),
)
# The largest part is for testing, as published (tensorflow_datasets, issue 3022).
_IDS = {"train": "trnid", "val": "valid", "test": "tstid"}


def _read(folder: Path, part: ListedPart) -> Listing:
    """List the numbered images; their classes are numbered from 1."""
    from torchvision.datasets import Flowers102

    (classes,) = read_matlab(folder / "imagelabels.mat", "labels")
    (ids,) = read_matlab(folder / "setid.mat", _IDS[part])
    labels = whole_numbers(folder / "imagelabels.mat", classes, 1, 102)
    numbers = whole_numbers(folder / "setid.mat", ids, 1, len(labels))
    images = [(f"jpg/image_{number:05}.jpg", labels[number - 1] - 1) for number in numbers]
    return Listing(list(Flowers102.classes), images)


FLOWERS102 = listed_set(
    "flowers102",
    "Oxford 102 Flowers",
    FLOWERS102_FILES,
    _read,
    counts={
        "train": Counts(2_040, 102, 20),
        "val": Counts(1_020, 102, 10),
        "test": Counts(6_149, 102),
    },
    metric="mean_per_class",
)
