"""DTD, the Describable Textures Dataset: 47 kinds of textures (Cimpoi et al. 2014).

The first of ten official splits has 40 training, 40 validation and 40 test images a class, 1,880 of
each; ``train`` is the former two, 3,760, as in Kornblith et al. 2019, Table 1. The publisher's
results are means over the ten splits, the transfer literature's those of the first.
"""

from __future__ import annotations

from pathlib import Path

from rsa_pretrain.data.sets.base import Counts
from rsa_pretrain.data.sets.listed import (
    ListedPart,
    Listing,
    list_class_folders,
    listed_set,
    number_classes,
)
from rsa_pretrain.data.sets.published_tree import read_lines
from rsa_pretrain.plumbing.fetch import Archive

# Address and checksum as in torchvision.datasets.DTD, which unpacks it one folder deeper.
DTD_ARCHIVE = Archive(
    "https://www.robots.ox.ac.uk/~vgg/data/dtd/download/dtd-r1.0.1.tar.gz",
    "fff73e5086ae6bdbea199a49dfb8a4c1",
    "dtd",
)


def _read(folder: Path, part: ListedPart) -> Listing:
    """List lines like ``banded/banded_0002.jpg``; the folders of the images are the classes."""
    class_names = list_class_folders(folder / "images")
    path = folder / "labels" / f"{part}1.txt"
    images = [(f"images/{line}", line.partition("/")[0]) for line in read_lines(path)]
    return Listing(class_names, number_classes(path, images, class_names))


DTD = listed_set(
    "dtd",
    "DTD",
    DTD_ARCHIVE,
    _read,
    counts={
        "train": Counts(3_760, 47, 80),
        "val": Counts(1_880, 47, 40),
        "test": Counts(1_880, 47, 40),
    },
)
