"""SUN397: 397 kinds of scenes (Xiao et al. 2010), read by the first of ten official partitions.

A partition has 50 training and 50 test images a class, 19,850 of each, without a validation part
(Kornblith et al. 2019, Table 1; tensorflow_datasets' ``standard-part1-120k``). The archive of
images has no partition; Partitions.zip has the lists ``Training_01.txt`` and ``Testing_01.txt``,
which belong beside its ``ClassName.txt``, as in torchvision's folder SUN397. Some files named .jpg
are PNG, BMP or GIF, and are read as what they are; tensorflow_datasets leaves out two as badly
encoded, c/church/outdoor/sun_bhenjvsvrtumjuri.jpg and t/track/outdoor/sun_aophkoiosslinihb.jpg.
"""

from __future__ import annotations

from pathlib import Path

from rsa_pretrain.data.sets.base import Counts
from rsa_pretrain.data.sets.listed import (
    ListedPart,
    Listing,
    listed_set,
    number_classes,
)
from rsa_pretrain.data.sets.published_tree import TreeFault, read_lines
from rsa_pretrain.plumbing.fetch import Bundle, BundledFile

# MD5 of the images as in torchvision.datasets.SUN397, whose address the publisher has given up
# (pytorch/vision, issue 9348), and of the partitions as in its pull request 5132. Both addresses
# are those of stable_datasets' SUN397, with the same checksums.
_PARTITIONS = BundledFile(
    "https://3dvision.princeton.edu/projects/2010/SUN/download/Partitions.zip",
    "29a205c0a0129d21f36cbecfefe81881",
    into="SUN397",
)
SUN397_FILES = Bundle(
    "SUN397",
    (
        BundledFile(
            "https://huggingface.co/zhengli97/SUN397_Dataset/resolve/main/SUN397.tar.gz",
            "8ca2778205c41d23104230ba66911c7a",
        ),
        _PARTITIONS,
    ),
    inside="SUN397",
)
_LISTS = {"train": "Training_01.txt", "test": "Testing_01.txt"}


def _read(folder: Path, part: ListedPart) -> Listing:
    """List lines like ``/a/abbey/sun_x.jpg``; the class is the path without the initial."""
    class_names = [line[3:] for line in read_lines(folder / "ClassName.txt")]
    path = folder / _LISTS[part]
    if not path.exists():  # as after torchvision's download
        raise TreeFault(
            f"no '{path}' (if '{folder}' has all images, unpack {_PARTITIONS.url} into it)"
        )
    names = [line.lstrip("/") for line in read_lines(path)]
    images = [(name, name.rpartition("/")[0][2:]) for name in names]
    return Listing(class_names, number_classes(path, images, class_names))


SUN397 = listed_set(
    "sun397",
    "SUN397",
    SUN397_FILES,
    _read,
    counts={"train": Counts(19_850, 397, 50), "test": Counts(19_850, 397, 50)},
)
