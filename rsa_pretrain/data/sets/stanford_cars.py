"""Stanford Cars: photographs of 196 models of cars (Krause et al. 2013).

The official split has 8,144 training and 8,041 test images, without a validation part (Kornblith et
al. 2019, Table 1; torchvision's documentation). The publisher's server is gone; the layout is
that of torchvision.datasets.StanfordCars, whose issue 7545 lists where the files are kept.
"""

from __future__ import annotations

from pathlib import Path

from rsa_pretrain.data.sets.base import Counts
from rsa_pretrain.data.sets.listed import ByHand, ListedPart, Listing, listed_set
from rsa_pretrain.data.sets.matlab import read_matlab
from rsa_pretrain.data.sets.published_tree import TreeFault, whole_numbers

_FOLDER = "stanford_cars"
# The development kit's own list of the test images has no classes.
_LISTS = {"train": "devkit/cars_train_annos.mat", "test": "cars_test_annos_withlabels.mat"}


def _read(folder: Path, part: ListedPart) -> Listing:
    """List the annotated images; their classes are numbered from 1."""
    (names,) = read_matlab(folder / "devkit" / "cars_meta.mat", "class_names")
    path = folder / _LISTS[part]
    (rows,) = read_matlab(path, "annotations")
    if not {"fname", "class"} <= set(rows.dtype.names or ()):
        raise TreeFault(f"'{path}' has annotations without 'fname' or 'class'")
    labels = whole_numbers(path, rows["class"], 1, 196)
    images = [
        (f"cars_{part}/{name}", label - 1)
        for name, label in zip(rows["fname"].reshape(-1), labels, strict=True)
    ]
    return Listing([str(name) for name in names.reshape(-1)], images)


def _how_to_get(root: Path) -> str:
    return (
        "the publisher's server is gone: get the images "
        "(kaggle.com/datasets/jessicali9530/stanford-cars-dataset), the development kit "
        "car_devkit.tgz and cars_test_annos_withlabels.mat, as "
        "https://github.com/pytorch/vision/issues/7545 lists, and lay them out as "
        f"{root}/{_FOLDER}/cars_train/*.jpg, cars_test/*.jpg, devkit/cars_train_annos.mat, "
        "devkit/cars_meta.mat and cars_test_annos_withlabels.mat"
    )


STANFORD_CARS = listed_set(
    "stanford_cars",
    "Stanford Cars",
    ByHand(_FOLDER, _how_to_get),
    _read,
    counts={"train": Counts(8_144, 196), "test": Counts(8_041, 196)},
)
