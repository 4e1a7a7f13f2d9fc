"""RESISC45: aerial photographs of 45 kinds of land use (Cheng et al. 2017), 256 px.

The 31,500 images have no official split. Read by torchgeo's lists there are 18,900 training, 6,300
validation and 6,300 test images; ``train`` is the former two. CLIP's split of 3,150 and 25,200 is
another one.
"""

from __future__ import annotations

from functools import partial

from rsa_pretrain.data.sets.base import Counts
from rsa_pretrain.data.sets.listed import listed_set
from rsa_pretrain.data.sets.torchgeo_lists import read_torchgeo
from rsa_pretrain.plumbing.fetch import Bundle, BundledFile

_ADDRESS = (
    "https://hf.co/datasets/torchgeo/resisc45/resolve/a826b44d938a883185f11ebe3d512d38b464312f/"
)
# Addresses and checksums as in torchgeo.datasets.RESISC45; the publisher's archive is on OneDrive.
RESISC45_FILES = Bundle(
    "resisc45",
    (
        BundledFile(f"{_ADDRESS}NWPU-RESISC45.zip", "75206b2e16446591afa88e2628744886"),
        BundledFile(f"{_ADDRESS}resisc45-train.txt", "b5a4c05a37de15e4ca886696a85c403e"),
        BundledFile(f"{_ADDRESS}resisc45-val.txt", "a0770cee4c5ca20b8c32bbd61e114805"),
        BundledFile(f"{_ADDRESS}resisc45-test.txt", "3dda9e4988b47eb1de9f07993653eb08"),
    ),
)

RESISC45 = listed_set(
    "resisc45",
    "RESISC45",
    RESISC45_FILES,
    partial(read_torchgeo, name="resisc45", images_folder="NWPU-RESISC45"),
    counts={"train": Counts(25_200, 45), "val": Counts(6_300, 45), "test": Counts(6_300, 45)},
)
