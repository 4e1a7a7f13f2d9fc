"""Caltech-101: photographs of 101 kinds of objects and, apart, of background (Fei-Fei et al. 2004).

There is no official split. Usual are 30 training images a class, drawn at random, and all others
for testing, with accuracy as the mean over classes. The transfer literature differs in one point:
Kornblith et al. 2019, Table 1, count 102 classes with 3,060 training and 6,084 test images, so they
take the folder BACKGROUND_Google for a class, as tensorflow_datasets and VTAB do; torchvision
leaves it out. So does ``caltech101``: 101 classes, 3,030 training and 5,647 test images, which are
torchvision's 8,677. ``caltech101_background`` keeps it, with Kornblith's numbers; compare results
with theirs by that one. Neither caps the test images of a class, nor does the suite; some older
results are of at most 50 (Lazebnik et al. 2006).

The draw is always the same: the 30 images of a class whose SHA-256 of ``0/CLASS/image_0001.jpg`` is
smallest, where 0 is the seed. The literature's draws are other ones.
"""

from __future__ import annotations

import hashlib
from functools import partial
from pathlib import Path

from rsa_pretrain.data.sets.base import Counts
from rsa_pretrain.data.sets.listed import ListedPart, Listing, list_class_folders, listed_set
from rsa_pretrain.data.sets.published_tree import TreeFault
from rsa_pretrain.plumbing.fetch import Bundle, BundledFile
from rsa_pretrain.plumbing.system_files import is_system

TRAIN_PER_CLASS = 30

# Address, checksum and the names of the folders as in torchvision.datasets.Caltech101.
CALTECH101_FILES = Bundle(
    "caltech101",
    (
        BundledFile(
            "https://data.caltech.edu/records/mzrjq-6wc02/files/caltech-101.zip",
            "3138e1922a9193bfa496528edbbc45d0",
            inner="caltech-101/101_ObjectCategories.tar.gz",
        ),
    ),
)
_IMAGES = "101_ObjectCategories"
_BACKGROUND = "BACKGROUND_Google"
_SEED = 0


def _read(folder: Path, part: ListedPart, *, background: bool) -> Listing:
    """Draw the images of a part, listed by class and then by name."""
    found = list_class_folders(folder / _IMAGES)
    class_names = [name for name in found if background or name != _BACKGROUND]
    images = []
    for label, class_name in enumerate(class_names):
        # The background's folder also has a list of addresses, named tmp.
        paths = (folder / _IMAGES / class_name).glob("*.jpg")
        names = sorted(path.name for path in paths if not is_system(path.name))
        if len(names) <= TRAIN_PER_CLASS:
            raise TreeFault(
                f"'{folder / _IMAGES / class_name}' has {len(names)} images, expected more than "
                f"the {TRAIN_PER_CLASS} for training"
            )
        drawn = set(sorted(names, key=partial(_lot, class_name))[:TRAIN_PER_CLASS])
        kept = [name for name in names if (name in drawn) == (part == "train")]
        images += [(f"{_IMAGES}/{class_name}/{name}", label) for name in kept]
    return Listing(class_names, images)


def _lot(class_name: str, name: str) -> str:
    return hashlib.sha256(f"{_SEED}/{class_name}/{name}".encode()).hexdigest()


CALTECH101 = listed_set(
    "caltech101",
    "Caltech-101",
    CALTECH101_FILES,
    partial(_read, background=False),
    counts={"train": Counts(3_030, 101, TRAIN_PER_CLASS), "test": Counts(5_647, 101)},
    metric="mean_per_class",
)

CALTECH101_BACKGROUND = listed_set(
    "caltech101_background",
    "Caltech-101 with background",
    CALTECH101_FILES,
    partial(_read, background=True),
    counts={"train": Counts(3_060, 102, TRAIN_PER_CLASS), "test": Counts(6_084, 102)},
    metric="mean_per_class",
)
