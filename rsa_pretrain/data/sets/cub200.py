"""CUB-200-2011: photographs of 200 bird species (Wah et al. 2011).

The official split has 5,994 training and 5,794 test images, without a validation part (numbers as
in tensorflow_datasets' ``caltech_birds2011`` and in the archive's README). It stands for the birds
of the transfer suite: Birdsnap, which Kornblith et al. 2019 use, is a list of web addresses of
which many are gone. Their protocol does not include it; top-1 accuracy is usual.
"""

from __future__ import annotations

from pathlib import Path

from rsa_pretrain.data.sets.base import Counts
from rsa_pretrain.data.sets.listed import ListedPart, Listing, listed_set, number_classes
from rsa_pretrain.data.sets.published_tree import TreeFault, read_lines
from rsa_pretrain.plumbing.fetch import Archive

# The publisher's record on CaltechDATA; checksum as in github.com/TDeVries/cub2011_dataset.
CUB200_ARCHIVE = Archive(
    "https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz",
    "97eceeb196236b17998738112f37df78",
    "CUB_200_2011",
)


def _read(folder: Path, part: ListedPart) -> Listing:
    """List the images whose number is marked 1 (training) or 0 in ``train_test_split.txt``."""
    class_names = _table(folder / "classes.txt")
    paths = _table(folder / "images.txt")
    classes = _table(folder / "image_class_labels.txt")
    marks = _table(folder / "train_test_split.txt")
    if not paths.keys() == classes.keys() == marks.keys():
        raise TreeFault(f"the lists in '{folder}' differ in the images that they number")
    if not set(marks.values()) <= {"0", "1"}:
        raise TreeFault(f"'{folder / 'train_test_split.txt'}' has a mark other than 0 and 1")
    wanted = "1" if part == "train" else "0"
    images = [
        (f"images/{path}", classes[key]) for key, path in paths.items() if marks[key] == wanted
    ]
    numbered = number_classes(folder / "image_class_labels.txt", images, list(class_names))
    return Listing(list(class_names.values()), numbered)


def _table(path: Path) -> dict[str, str]:
    """Read lines of a number and a value."""
    rows = [line.split(" ", 1) for line in read_lines(path)]
    if any(len(row) != 2 for row in rows):
        raise TreeFault(f"'{path}' has a line without a number and a value")
    found = {number: value for number, value in rows}
    if len(found) < len(rows):
        raise TreeFault(f"'{path}' has two lines of the same number")
    return found


CUB200 = listed_set(
    "cub200",
    "CUB-200-2011",
    CUB200_ARCHIVE,
    _read,
    counts={"train": Counts(5_994, 200), "test": Counts(5_794, 200)},
)
