"""FGVC-Aircraft: photographs of 100 variants of aircraft (Maji et al. 2013).

The official split has 3,334 training, 3,333 validation and 3,333 test images; ``train`` is the
former two, 6,667, as in Kornblith et al. 2019, Table 1, where accuracy is the mean over classes.
Each image ends in a banner of 20 px with the photographer's name, which torchvision and the
transfer literature leave in.
"""

from __future__ import annotations

from pathlib import Path

from rsa_pretrain.data.sets.base import Counts
from rsa_pretrain.data.sets.listed import (
    ListedPart,
    Listing,
    listed_set,
    number_classes,
)
from rsa_pretrain.data.sets.published_tree import read_lines
from rsa_pretrain.plumbing.fetch import Archive

# The address is torchvision.datasets.FGVCAircraft's, which states no checksum; this one is stated
# by torch for R (torchvision's R package) and by DeepMind's dm_nevis.
FGVC_AIRCRAFT_ARCHIVE = Archive(
    "https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft/archives/fgvc-aircraft-2013b.tar.gz",
    "d4acdd33327262359767eeaa97a4f732",
    "fgvc-aircraft-2013b",
)


def _read(folder: Path, part: ListedPart) -> Listing:
    """List lines of an image's number and its variant, such as Boeing 717, with blanks."""
    class_names = read_lines(folder / "data" / "variants.txt")
    path = folder / "data" / f"images_variant_{part}.txt"
    rows = [line.partition(" ") for line in read_lines(path)]
    images = [(f"data/images/{number}.jpg", variant) for number, _, variant in rows]
    return Listing(class_names, number_classes(path, images, class_names))


FGVC_AIRCRAFT = listed_set(
    "fgvc_aircraft",
    "FGVC-Aircraft",
    FGVC_AIRCRAFT_ARCHIVE,
    _read,
    counts={
        "train": Counts(6_667, 100),
        "val": Counts(3_333, 100),
        "test": Counts(3_333, 100),
    },
    metric="mean_per_class",
)
