"""SUN397: 397 kinds of scenes (Xiao et al. 2010), read by the first of ten official partitions.

A partition has 50 training and 50 test images a class, 19,850 of each, without a validation part
(Kornblith et al. 2019, Table 1; tensorflow_datasets' ``standard-part1``). The archive of images has
no partition; ``Training_01.txt`` and ``Testing_01.txt`` of Partitions.zip belong beside its
``ClassName.txt``. Some files named .jpg are PNG, BMP or GIF, and are read as what they are;
tensorflow_datasets leaves out c/church/outdoor/sun_bhenjvsvrtumjuri.jpg as badly encoded.
"""

from __future__ import annotations

from pathlib import Path

from rsa_pretrain.data.sets.base import Counts
from rsa_pretrain.data.sets.listed import (
    ByHand,
    ListedPart,
    Listing,
    listed_set,
    number_classes,
)
from rsa_pretrain.data.sets.published_tree import read_lines

_FOLDER = "SUN397"
_LISTS = {"train": "Training_01.txt", "test": "Testing_01.txt"}


def _read(folder: Path, part: ListedPart) -> Listing:
    """List lines like ``/a/abbey/sun_x.jpg``; the class is the path without the initial."""
    class_names = [line[3:] for line in read_lines(folder / "ClassName.txt")]
    path = folder / _LISTS[part]
    names = [line.lstrip("/") for line in read_lines(path)]
    images = [(name, name.rpartition("/")[0][2:]) for name in names]
    return Listing(class_names, number_classes(path, images, class_names))


def _how_to_get(root: Path) -> str:
    return (
        "no checksum of its partitions is published: download SUN397.tar.gz (37 GB, MD5 "
        "8ca2778205c41d23104230ba66911c7a) and download/Partitions.zip from "
        "https://vision.princeton.edu/projects/2010/SUN/ and unpack them as "
        f"{root}/{_FOLDER}/ClassName.txt, {root}/{_FOLDER}/a/abbey/*.jpg and "
        f"{root}/{_FOLDER}/Training_01.txt, Testing_01.txt"
    )


SUN397 = listed_set(
    "sun397",
    "SUN397",
    ByHand(_FOLDER, _how_to_get),
    _read,
    counts={"train": Counts(19_850, 397, 50), "test": Counts(19_850, 397, 50)},
)
