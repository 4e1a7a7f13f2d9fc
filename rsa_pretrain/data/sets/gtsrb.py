"""GTSRB: photographs of 43 German traffic signs (Stallkamp et al. 2012), PPM files of 15 to 250 px.

The test part has 12,630 images. There are two training archives: that of torchvision, which CLIP's
table of data sets and this module use, GTSRB-Training_fixed.zip with 26,640 images, and
GTSRB_Final_Training_Images.zip with 39,209. Neither has a validation part. About 30 images in
sequence show the same sign, so images held out at random look easier than the test images are.
"""

from __future__ import annotations

import csv
from pathlib import Path

from rsa_pretrain.data.image_folder import walk
from rsa_pretrain.data.sets.base import Counts
from rsa_pretrain.data.sets.listed import ListedPart, Listing, list_class_folders, listed_set
from rsa_pretrain.data.sets.published_tree import (
    TreeFault,
    read_published,
)
from rsa_pretrain.plumbing.fetch import Bundle, BundledFile

_ADDRESS = "https://sid.erda.dk/public/archives/daaeac0d7ce1152aea9b61d9f1e19370/"
# Addresses, checksums and the name of the folder as in torchvision.datasets.GTSRB.
GTSRB_FILES = Bundle(
    "gtsrb",
    (
        BundledFile(f"{_ADDRESS}GTSRB-Training_fixed.zip", "513f3c79a4c5141765e10e952eaa2478"),
        BundledFile(f"{_ADDRESS}GTSRB_Final_Test_Images.zip", "c7e4e6327067d32654124b0fe9e82185"),
        BundledFile(f"{_ADDRESS}GTSRB_Final_Test_GT.zip", "fe31e9c9270bbcd7b84b7f21a9d9d9e5"),
    ),
)
_TRAINING = "GTSRB/Training"
_TEST = "GTSRB/Final_Test/Images"
_TEST_LIST = "GT-final_test.csv"


def _read(folder: Path, part: ListedPart) -> Listing:
    """List the training images by folder, the test images by a table; classes are numbers."""
    class_names = [f"{number:05}" for number in range(43)]
    if part == "train":
        return Listing(class_names, _training_images(folder, class_names))
    path = folder / _TEST_LIST
    rows = csv.DictReader(read_published(path).splitlines(), delimiter=";")
    try:
        images = [(f"{_TEST}/{row['Filename']}", int(row["ClassId"])) for row in rows]
    except (csv.Error, KeyError, TypeError, ValueError):
        raise TreeFault(
            f"'{path}' should have the columns Filename and ClassId, a number, separated by ;"
        ) from None
    return Listing(class_names, images)


def _training_images(folder: Path, class_names: list[str]) -> list[tuple[str, int]]:
    if list_class_folders(folder / _TRAINING) != class_names:
        raise TreeFault(f"'{folder / _TRAINING}' should have the folders 00000 to 00042 alone")
    names = [name for name in walk(folder / _TRAINING).names if name.endswith(".ppm")]
    return [(f"{_TRAINING}/{name}", int(name.partition("/")[0])) for name in names]


GTSRB = listed_set(
    "gtsrb",
    "GTSRB",
    GTSRB_FILES,
    _read,
    counts={"train": Counts(26_640, 43), "test": Counts(12_630, 43)},
)
