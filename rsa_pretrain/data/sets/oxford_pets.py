"""Oxford-IIIT Pet: photographs of 37 breeds of cats and dogs (Parkhi et al. 2012).

The official split has 3,680 training and 3,669 test images, without a separate validation part
(tensorflow_datasets' ``oxford_iiit_pet``). Kornblith et al. 2019, Table 1, print 3,369 test images;
the published ``annotations/test.txt`` lists 3,669. Their accuracy is the mean over classes.
"""

from __future__ import annotations

from pathlib import Path

from rsa_pretrain.data.sets.base import Counts
from rsa_pretrain.data.sets.listed import ListedPart, Listing, listed_set
from rsa_pretrain.data.sets.published_tree import TreeFault, read_lines
from rsa_pretrain.plumbing.fetch import Bundle, BundledFile

_ADDRESS = "https://www.robots.ox.ac.uk/~vgg/data/pets/data/"
# Addresses, checksums and the name of the folder as in torchvision.datasets.OxfordIIITPet.
OXFORD_PETS_FILES = Bundle(
    "oxford-iiit-pet",
    (
        BundledFile(f"{_ADDRESS}images.tar.gz", "5c4f3ee8e5d25df40f4fd59a7f44e54c"),
        BundledFile(f"{_ADDRESS}annotations.tar.gz", "95a8c909bbe2e81eed6a22bccdf3f68f"),
    ),
)
_LISTS = {"train": "trainval.txt", "test": "test.txt"}
_LABELS = {str(label + 1): label for label in range(37)}


def _read(folder: Path, part: ListedPart) -> Listing:
    """List lines like ``Abyssinian_100 1 1 1``: image, class from 1, cat or dog, breed of that."""
    path = folder / "annotations" / _LISTS[part]
    names: dict[int, str] = {}
    images = []
    for line in read_lines(path):
        words = line.split()
        if len(words) != 4 or words[1] not in _LABELS:
            raise TreeFault(
                f"'{path}' has the line '{line}', expected an image and three numbers, the first "
                f"from 1 to {len(_LABELS)}"
            )
        breed = words[0].rpartition("_")[0].replace("_", " ").title()
        label = _LABELS[words[1]]
        if names.setdefault(label, breed) != breed:
            raise TreeFault(f"'{path}' names class {label + 1} both '{names[label]}' and '{breed}'")
        images.append((f"images/{words[0]}.jpg", label))
    return Listing([names[label] for label in sorted(names)], images)


OXFORD_PETS = listed_set(
    "oxford_pets",
    "Oxford-IIIT Pet",
    OXFORD_PETS_FILES,
    _read,
    counts={"train": Counts(3_680, 37), "test": Counts(3_669, 37)},
    metric="mean_per_class",
)
