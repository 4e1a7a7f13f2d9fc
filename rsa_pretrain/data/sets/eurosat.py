"""EuroSAT: satellite photographs of ten kinds of land use (Helber et al. 2019), RGB, 64 px.

The 27,000 images have no official split. Read by torchgeo's lists there are 16,200 training, 5,400
validation and 5,400 test images; ``train`` is the former two. CLIP's split of 10,000 and 5,000 is
another one.
"""

from __future__ import annotations

from functools import partial

from rsa_pretrain.data.sets.base import Counts
from rsa_pretrain.data.sets.listed import listed_set
from rsa_pretrain.data.sets.torchgeo_lists import read_torchgeo
from rsa_pretrain.plumbing.fetch import Bundle, BundledFile

_LISTS = "https://hf.co/datasets/torchgeo/eurosat/resolve/1ce6f1bfb56db63fd91b6ecc466ea67f2509774c/"
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
        BundledFile(f"{_LISTS}eurosat-train.txt", "908f142e73d6acdf3f482c5e80d851b1"),
        BundledFile(f"{_LISTS}eurosat-val.txt", "95de90f2aa998f70a3b2416bfe0687b4"),
        BundledFile(f"{_LISTS}eurosat-test.txt", "7ae5ab94471417b6e315763121e67c5f"),
    ),
)

EUROSAT = listed_set(
    "eurosat",
    "EuroSAT",
    EUROSAT_FILES,
    partial(read_torchgeo, name="eurosat", images_folder="2750"),
    counts={"train": Counts(21_600, 10), "val": Counts(5_400, 10), "test": Counts(5_400, 10)},
)
