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
from dataclasses import replace
from functools import partial
from pathlib import Path

from rsa_pretrain.data.image_folder import class_folders
from rsa_pretrain.data.sets.base import Counts, DataSet
from rsa_pretrain.data.sets.listed import ListedPart, ListedTree, Listing, open_listed
from rsa_pretrain.data.sets.published_tree import TRANSFER_NORMALISATION, TreeFault
from rsa_pretrain.plumbing.fetch import Bundle, BundledFile, fetch
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
    if not (folder / _IMAGES).is_dir():
        raise TreeFault(f"no folder '{folder / _IMAGES}'")
    found = class_folders(folder / _IMAGES).names
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


def _download(root: Path, url: str | None) -> None:
    fetch(CALTECH101_FILES, root, url)


_TREE = ListedTree("caltech101", CALTECH101_FILES.folder, 101, partial(_read, background=False))

CALTECH101 = DataSet(
    name=_TREE.name,
    label="Caltech-101",
    normalisation=TRANSFER_NORMALISATION,
    open=partial(open_listed, tree=_TREE),
    download=_download,
    counts={"train": Counts(3_030, 101, TRAIN_PER_CLASS), "test": Counts(5_647, 101)},
    folders=(_TREE.folder,),
    metric="mean_per_class",
)

_WITH_BACKGROUND = replace(
    _TREE,
    name="caltech101_background",
    num_classes=102,
    read=partial(_read, background=True),
)

CALTECH101_BACKGROUND = replace(
    CALTECH101,
    name=_WITH_BACKGROUND.name,
    label="Caltech-101 with background",
    open=partial(open_listed, tree=_WITH_BACKGROUND),
    counts={"train": Counts(3_060, 102, TRAIN_PER_CLASS), "test": Counts(6_084, 102)},
)
