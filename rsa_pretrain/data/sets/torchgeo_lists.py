"""Read the splits of remote sensing's data sets that torchgeo uses.

Neumann et al. 2019 (arXiv 1911.06721) published the lists: 60 % training, 20 % validation and 20 %
test images. VTAB takes the same shares in tensorflow_datasets' order; results on other splits are
not comparable.
"""

from __future__ import annotations

from pathlib import Path

from rsa_pretrain.data.sets.listed import (
    ListedPart,
    Listing,
    list_class_folders,
    number_classes,
)
from rsa_pretrain.data.sets.published_tree import read_lines


def read_torchgeo(folder: Path, part: ListedPart, *, name: str, images_folder: str) -> Listing:
    """List a part by lines like ``AnnualCrop_1.jpg``; the folders of the images are the classes.

    Args:
        folder: The set's folder.
        part: Which list.
        name: Start of the lists' names.
        images_folder: Folder of the class folders, below the set's.

    Raises:
        TreeFault: If the list or the folder is missing, or a class is unknown.
    """
    class_names = list_class_folders(folder / images_folder)
    path = folder / f"{name}-{part}.txt"
    images = []
    for line in read_lines(path):
        class_name = line.rpartition("_")[0]
        images.append((f"{images_folder}/{class_name}/{line}", class_name))
    return Listing(class_names, number_classes(path, images, class_names))
