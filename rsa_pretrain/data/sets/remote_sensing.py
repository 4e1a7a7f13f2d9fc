"""EuroSAT and RESISC45: satellite and aerial photographs in folders of 10 and 45 kinds of land use.

Neither has an official split. Both are read by the lists that Neumann et al. 2019 (arXiv
1911.06721) published and torchgeo uses: 60 % training, 20 % validation and 20 % test images.
EuroSAT (Helber et al. 2019, RGB, 64 px, 27,000 images) has 16,200, 5,400 and 5,400; RESISC45 (Cheng
et al. 2017, 256 px, 31,500 images) 18,900, 6,300 and 6,300. ``train`` is the former two. VTAB
takes the same shares in tensorflow_datasets' order, and CLIP other ones (10,000 and 5,000; 3,150
and 25,200): results on other splits are not comparable.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from rsa_pretrain.data.image_folder import class_folders
from rsa_pretrain.data.sets.base import Counts, DataSet
from rsa_pretrain.data.sets.listed import (
    ListedPart,
    ListedTree,
    Listing,
    number_classes,
    open_listed,
)
from rsa_pretrain.data.sets.published_tree import TRANSFER_NORMALISATION, TreeFault, read_lines
from rsa_pretrain.plumbing.fetch import Bundle, BundledFile, fetch

_EUROSAT_LISTS = (
    "https://hf.co/datasets/torchgeo/eurosat/resolve/1ce6f1bfb56db63fd91b6ecc466ea67f2509774c/"
)
# The archive's address and checksum as in torchvision.datasets.EuroSAT, the lists' as in torchgeo.
# Another folder than torchvision's eurosat, which configs here use for a split of the user's.
EUROSAT_FILES = Bundle(
    "eurosat_rgb",
    (
        BundledFile(
            "https://huggingface.co/datasets/torchgeo/eurosat/resolve/"
            "c877bcd43f099cd0196738f714544e355477f3fd/EuroSAT.zip",
            "c8fa014336c82ac7804f0398fcb19387",
        ),
        BundledFile(f"{_EUROSAT_LISTS}eurosat-train.txt", "908f142e73d6acdf3f482c5e80d851b1"),
        BundledFile(f"{_EUROSAT_LISTS}eurosat-val.txt", "95de90f2aa998f70a3b2416bfe0687b4"),
        BundledFile(f"{_EUROSAT_LISTS}eurosat-test.txt", "7ae5ab94471417b6e315763121e67c5f"),
    ),
)

_RESISC45 = (
    "https://hf.co/datasets/torchgeo/resisc45/resolve/a826b44d938a883185f11ebe3d512d38b464312f/"
)
# Addresses and checksums as in torchgeo.datasets.RESISC45; the publisher's archive is on OneDrive.
RESISC45_FILES = Bundle(
    "resisc45",
    (
        BundledFile(f"{_RESISC45}NWPU-RESISC45.zip", "75206b2e16446591afa88e2628744886"),
        BundledFile(f"{_RESISC45}resisc45-train.txt", "b5a4c05a37de15e4ca886696a85c403e"),
        BundledFile(f"{_RESISC45}resisc45-val.txt", "a0770cee4c5ca20b8c32bbd61e114805"),
        BundledFile(f"{_RESISC45}resisc45-test.txt", "3dda9e4988b47eb1de9f07993653eb08"),
    ),
)


def _read(folder: Path, part: ListedPart, *, name: str, images_folder: str) -> Listing:
    """List lines like ``AnnualCrop_1.jpg``; the folders of the images are the classes."""
    if not (folder / images_folder).is_dir():
        raise TreeFault(f"no folder '{folder / images_folder}'")
    class_names = class_folders(folder / images_folder).names
    path = folder / f"{name}-{part}.txt"
    images = []
    for line in read_lines(path):
        class_name = line.rpartition("_")[0]
        images.append((f"{images_folder}/{class_name}/{line}", class_name))
    return Listing(class_names, number_classes(path, images, class_names))


def _download(root: Path, url: str | None, files: Bundle) -> None:
    fetch(files, root, url)


def _tree(name: str, files: Bundle, num_classes: int, images_folder: str) -> ListedTree:
    read = partial(_read, name=name, images_folder=images_folder)
    return ListedTree(name, files.folder, num_classes, read, has_val=True)


EUROSAT = DataSet(
    name="eurosat",
    label="EuroSAT",
    normalisation=TRANSFER_NORMALISATION,
    open=partial(open_listed, tree=_tree("eurosat", EUROSAT_FILES, 10, "2750")),
    download=partial(_download, files=EUROSAT_FILES),
    counts={"train": Counts(21_600, 10), "val": Counts(5_400, 10), "test": Counts(5_400, 10)},
    folders=(EUROSAT_FILES.folder,),
)

RESISC45 = DataSet(
    name="resisc45",
    label="RESISC45",
    normalisation=TRANSFER_NORMALISATION,
    open=partial(open_listed, tree=_tree("resisc45", RESISC45_FILES, 45, "NWPU-RESISC45")),
    download=partial(_download, files=RESISC45_FILES),
    counts={"train": Counts(25_200, 45), "val": Counts(6_300, 45), "test": Counts(6_300, 45)},
    folders=(RESISC45_FILES.folder,),
)
