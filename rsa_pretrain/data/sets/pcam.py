"""PatchCamelyon: stained tissue of lymph nodes with or without a tumour (Veeling et al. 2018).

The official split has 262,144 training, 32,768 validation and 32,768 test images of 96 px (the
publisher's README, tensorflow_datasets' ``patch_camelyon``); ``train`` is the former two, 294,912,
as in CLIP's table of data sets. They are HDF5 files of images (N, 96, 96, 3) and labels
(N, 1, 1, 1), which need h5py; images are read one by one, as all of them take 8 GB.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rsa_pretrain.data.sets.base import AnySplit, Counts, DataSet
from rsa_pretrain.data.sets.numbered_images import NumberedImages
from rsa_pretrain.data.sets.published_tree import (
    TRANSFER_NORMALISATION,
    TreeFault,
    check_count,
    faults_explained,
    whole_numbers,
)
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.extras import import_extra
from rsa_pretrain.plumbing.fetch import Bundle, BundledFile, fetch

if TYPE_CHECKING:
    from PIL import Image

    from rsa_pretrain.data.image_set import ImageSet
    from rsa_pretrain.data.settings import DataConfig

_ADDRESS = "https://zenodo.org/records/2546921/files/camelyonpatch_level_2_split_"
# The publisher's record on Zenodo; checksums as in torchvision.datasets.PCAM. An earlier README of
# the publisher had those of validation and test the other way round (basveeling/pcam, issue 1).
PCAM_FILES = Bundle(
    "pcam",
    (
        BundledFile(f"{_ADDRESS}train_x.h5.gz", "1571f514728f59376b705fc836ff4b63"),
        BundledFile(f"{_ADDRESS}train_y.h5.gz", "35c2d7259d906cfc8143347bb8e05be7"),
        BundledFile(f"{_ADDRESS}valid_x.h5.gz", "d5b63470df7cfa627aeec8b9dc0c066e"),
        BundledFile(f"{_ADDRESS}valid_y.h5.gz", "2b85f58b927af9964a4c15b8f7e8f179"),
        BundledFile(f"{_ADDRESS}test_x.h5.gz", "d8c2d60d490dbd479f8199bdfa0cf6ec"),
        BundledFile(f"{_ADDRESS}test_y.h5.gz", "60a7035772fbdb7f34eb86d4420cf66a"),
    ),
)
_SHAPE = (96, 96, 3)
_COUNTS: dict[AnySplit, Counts] = {
    "train": Counts(294_912, 2),
    "val": Counts(32_768, 2),
    "test": Counts(32_768, 2),
}
_PARTS = {"train": ("train", "valid"), "val": ("valid",), "test": ("test",)}


class PatchFiles(NumberedImages):
    """The images of some HDF5 files; not ``PixelSources``, as they fill the memory.

    Args:
        folder: Folder of the files.
        sizes: Number of images of each part.
    """

    def __init__(self, folder: Path, sizes: dict[str, int]) -> None:
        super().__init__({part: _path(folder, part, "x") for part in sizes}, sizes)
        self._open: dict[tuple[int, str], Any] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Leave the open files behind: a loader process opens them itself."""
        return vars(self) | {"_open": {}}

    def read(self, index: int) -> tuple[Image.Image, str]:
        """Read one image."""
        from PIL import Image

        part, number = self.locate(index)
        try:
            pixels = self._images(part)[number]
        except OSError as error:
            raise UserError(f"cannot read {self.where(index)}: {error}") from None
        return Image.fromarray(pixels), "RGB"

    def _images(self, part: str) -> Any:
        """Open a file once in each process: a forked one must not share the reader's state."""
        import h5py

        place = (os.getpid(), part)
        if place not in self._open:
            file = h5py.File(self.paths[part], "r")
            self._open[place] = (file, file["x"])
        return self._open[place][1]


def _open(config: DataConfig, split: AnySplit) -> ImageSet:
    """Read the labels of ``root/pcam/`` and check the shape of the images, but read none."""
    from rsa_pretrain.data.image_set import ImageSet

    assert config.root is not None
    folder = config.root / PCAM_FILES.folder
    labels: list[int] = []
    sizes: dict[str, int] = {}
    with faults_explained("pcam", folder):
        for part in _PARTS["train" if split == "pretrain" else split]:
            found = _read_labels(folder, part)
            sizes[part] = len(found)
            labels += found
        check_count(folder, _COUNTS, split, len(labels))
    return ImageSet("pcam", PatchFiles(folder, sizes), labels, ["normal", "tumour"])


def _read_labels(folder: Path, part: str) -> list[int]:
    """Read the labels of a part, 0 or 1, and compare their number with the images'."""
    import numpy as np

    h5py = import_extra("h5py", "data set 'pcam'")
    shapes: list[tuple[int, ...]] = []
    for axis in ("x", "y"):
        path = _path(folder, part, axis)
        if not path.is_file():
            raise TreeFault(f"no '{path}'")
        try:
            with h5py.File(path, "r") as file:
                stored = file[axis]
                if not isinstance(stored, h5py.Dataset):
                    raise TreeFault(f"'{path}' has no array '{axis}'")
                shapes.append(stored.shape)
                if axis == "y":
                    labels = whole_numbers(path, np.asarray(stored[()]), 0, 1)
                elif stored.dtype != np.uint8:
                    raise TreeFault(f"'{path}' has pixels of type {stored.dtype}, not uint8")
        except (OSError, KeyError) as error:
            raise TreeFault(f"'{path}' is not a readable HDF5 file of '{axis}' ({error})") from None
    if shapes[0] != (len(labels), *_SHAPE):
        raise TreeFault(
            f"'{_path(folder, part, 'x')}' has pixels of shape {shapes[0]}, expected "
            f"{(len(labels), *_SHAPE)} as there are {len(labels):,} labels"
        )
    return labels


def _path(folder: Path, part: str, axis: str) -> Path:
    return folder / f"camelyonpatch_level_2_split_{part}_{axis}.h5"


def _download(root: Path, url: str | None) -> None:
    import_extra("h5py", "data set 'pcam'")  # before 8 GB are downloaded that cannot be read
    fetch(PCAM_FILES, root, url)


PCAM = DataSet(
    name="pcam",
    label="PatchCamelyon",
    normalisation=TRANSFER_NORMALISATION,
    open=_open,
    download=_download,
    counts=_COUNTS,
    folders=(PCAM_FILES.folder,),
    is_pixels=True,
)
