"""Food-101: photographs of 101 dishes (Bossard et al. 2014), JPEG files of at most 512 px a side.

The official split has 750 training and 250 test images a class, 75,750 and 25,250 in all, without
a validation part; the training labels are noisy on purpose, the test labels were reviewed. Numbers
as in Kornblith et al. 2019, Table 1, and in torchvision's documentation. The archive's
``meta/train.json`` and ``test.json`` list the images by class.
"""

from __future__ import annotations

import json
from pathlib import Path

from rsa_pretrain.data.sets.base import Counts
from rsa_pretrain.data.sets.listed import ListedPart, Listing, listed_set, number_classes
from rsa_pretrain.data.sets.published_tree import (
    TreeFault,
    read_published,
)
from rsa_pretrain.plumbing.fetch import Archive

# Address and checksum as in torchvision.datasets.Food101.
FOOD101_ARCHIVE = Archive(
    "http://data.vision.ee.ethz.ch/cvl/food-101.tar.gz",
    "85eeb15f3717b99a5da872d97d918f87",
    "food-101",
)


def _read(folder: Path, part: ListedPart) -> Listing:
    path = folder / "meta" / f"{part}.json"
    try:
        found = json.loads(read_published(path))
    except (json.JSONDecodeError, RecursionError) as error:
        raise TreeFault(f"'{path}' is not JSON that can be read ({error})") from None
    if not isinstance(found, dict) or not all(isinstance(names, list) for names in found.values()):
        raise TreeFault(f"'{path}' should have a list of images for each class")
    class_names = sorted(found)
    images = [(f"images/{name}.jpg", kind) for kind, names in found.items() for name in names]
    return Listing(class_names, number_classes(path, images, class_names))


FOOD101 = listed_set(
    "food101",
    "Food-101",
    FOOD101_ARCHIVE,
    _read,
    counts={"train": Counts(75_750, 101, 750), "test": Counts(25_250, 101, 250)},
)
