"""SVHN: photographs of house numbers' digits, cropped to 32 px (Netzer et al. 2011).

The official split has 73,257 training and 26,032 test images; the 531,131 easier ones of the part
``extra`` are not used (numbers as in tensorflow_datasets' ``svhn_cropped``). There is no validation
part. Files of MATLAB: X is (32, 32, 3, N), y has the digits with 10 for zero, which is class 0 here
as in torchvision. They are read whole, 225 MB for training.
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING

from rsa_pretrain.data.sets.base import AnySplit, Counts, DataSet
from rsa_pretrain.data.sets.matlab import read_matlab
from rsa_pretrain.data.sets.published_tree import (
    TRANSFER_NORMALISATION,
    TreeFault,
    check_count,
    faults_explained,
    whole_numbers,
)
from rsa_pretrain.plumbing.fetch import Bundle, BundledFile, fetch
from rsa_pretrain.plumbing.memory import RAISE_LIMIT, require_memory

if TYPE_CHECKING:
    from rsa_pretrain.data.image_set import ImageSet
    from rsa_pretrain.data.settings import DataConfig

_ADDRESS = "http://ufldl.stanford.edu/housenumbers/"
# Addresses and checksums as in torchvision.datasets.SVHN, which has no folder for them.
SVHN_FILES = Bundle(
    "svhn",
    (
        BundledFile(f"{_ADDRESS}train_32x32.mat", "e26dedcc434d2e4c54c9b2d4a06d8373"),
        BundledFile(f"{_ADDRESS}test_32x32.mat", "eb5a983be6a315427106f1b164d9cef3"),
    ),
)
_SHAPE = (32, 32, 3)
_COUNTS: dict[AnySplit, Counts] = {"train": Counts(73_257, 10), "test": Counts(26_032, 10)}


def _open(config: DataConfig, split: AnySplit) -> ImageSet:
    """Read ``root/svhn/train_32x32.mat`` or ``test_32x32.mat`` into memory."""
    import numpy as np

    from rsa_pretrain.data.image_set import ImageSet
    from rsa_pretrain.data.image_sources import PixelArray

    assert config.root is not None
    part: AnySplit = "test" if split == "test" else "train"
    folder = config.root / SVHN_FILES.folder
    path = folder / f"{part}_32x32.mat"
    with faults_explained("svhn", folder):
        # As stored, and in the order of images.
        least = 2 * (_COUNTS[part].images or 0) * math.prod(_SHAPE)
        require_memory(least, f"the {part} images of svhn", RAISE_LIMIT)
        pixels, digits = read_matlab(path, "X", "y")
        if pixels.dtype != np.uint8 or pixels.shape != (*_SHAPE, digits.size):
            raise TreeFault(
                f"'{path}' has {digits.size} digits and pixels of type {pixels.dtype} and shape "
                f"{pixels.shape}, expected uint8 and {(*_SHAPE, digits.size)}"
            )
        labels = [digit % 10 for digit in whole_numbers(path, digits, 1, 10)]
        check_count(folder, _COUNTS, split, digits.size)
    array = np.ascontiguousarray(pixels.transpose(3, 0, 1, 2))
    sources = PixelArray(array, "svhn", f"{part} ")
    return ImageSet("svhn", sources, labels, [str(digit) for digit in range(10)])


SVHN = DataSet(
    name="svhn",
    label="SVHN",
    normalisation=TRANSFER_NORMALISATION,
    open=_open,
    download=partial(fetch, SVHN_FILES),
    counts=_COUNTS,
    folders=(SVHN_FILES.folder,),
    is_pixels=True,
)
