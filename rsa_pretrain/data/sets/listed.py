"""Define sets of image files, of which lists beside them say the class and the split.

torchvision's readers are not used where it has them, as they open image files by rules other than
``ReadRules`` and end in a traceback at a damaged list. Tests compare images, labels and class names
with theirs.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rsa_pretrain.data.image_folder import ImageFiles, class_folders
from rsa_pretrain.data.sets.base import AnySplit, Counts, DataSet
from rsa_pretrain.data.sets.published_tree import (
    TRANSFER_NORMALISATION,
    TreeFault,
    check_count,
    faults_explained,
)
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.fetch import Archive, Bundle, fetch
from rsa_pretrain.plumbing.name_lists import first_of

if TYPE_CHECKING:
    from rsa_pretrain.data.image_set import ImageSet
    from rsa_pretrain.data.settings import DataConfig

# A part as published: where there is validation, "train" is without it.
ListedPart = Literal["train", "val", "test"]
_PARTS: tuple[ListedPart, ...] = ("train", "val", "test")


@dataclass(frozen=True)
class Listing:
    """The images of one part.

    Attributes:
        class_names: Names by class index, the same for every part.
        images: Path below the set's folder and class index of each image.
    """

    class_names: list[str]
    images: list[tuple[str, int]]


@dataclass(frozen=True)
class ByHand:
    """Published files that cannot be downloaded.

    Attributes:
        folder: Their folder in ``data.root``.
        how_to_get: Says for a root why, and where the files come from.
    """

    folder: str
    how_to_get: Callable[[Path], str]

    def download(self, root: Path, url: str | None) -> None:
        """Do nothing if the folder is there, or raise a ``UserError`` that says how to get it."""
        if not (root / self.folder).is_dir():
            raise UserError(f"'{root / self.folder}' cannot be downloaded; {self.how_to_get(root)}")


def listed_set(
    name: str,
    label: str,
    source: Archive | Bundle | ByHand,
    read: Callable[[Path, ListedPart], Listing],
    counts: Mapping[AnySplit, Counts],
    metric: Literal["top1", "mean_per_class"] = "top1",
) -> DataSet:
    """Define a set of the transfer suite.

    Args:
        name: As ``data.name``.
        label: Name used in papers.
        source: The published files, which make up one folder.
        read: Lists a part, for the path of that folder; raises ``TreeFault``.
        counts: Published numbers; there is a validation part if it has those of ``val``.
        metric: Accuracy that the literature reports.
    """
    return DataSet(
        name=name,
        label=label,
        normalisation=TRANSFER_NORMALISATION,
        open=partial(_open, source=source, read=read, counts=counts),
        download=source.download if isinstance(source, ByHand) else partial(fetch, source),
        counts=counts,
        folders=(source.folder,),
        metric=metric,
    )


def _open(
    config: DataConfig,
    split: AnySplit,
    source: Archive | Bundle | ByHand,
    read: Callable[[Path, ListedPart], Listing],
    counts: Mapping[AnySplit, Counts],
) -> ImageSet:
    """Open a split; its images are in the published order, validation after training.

    Nothing is decoded: a damaged file fails when it is first read, and data-check names all. All
    lists are read, as images missing of one part may have moved to another.
    """
    from rsa_pretrain.data.image_set import ImageSet

    assert config.root is not None
    folder = config.root / source.folder
    how_to_get = source.how_to_get if isinstance(source, ByHand) else None
    with faults_explained(config.name, folder, how_to_get):
        listings = {part: read(folder, part) for part in _PARTS if part in counts}
        class_names = listings["train"].class_names
        if any(listing.class_names != class_names for listing in listings.values()):
            raise TreeFault(f"the lists in '{folder}' differ in their classes")
        splits = {part: listing.images for part, listing in listings.items()}
        splits["train"] = splits["train"] + splits.get("val", [])
        for part, images in splits.items():
            _check_classes(folder, counts[part].classes, class_names, images)
            check_count(folder, counts, part, len(images))
        # Of all images but those of validation, which are in training too.
        _check_distinct(folder, [name for name, _ in splits["train"] + splits["test"]])
        chosen = splits["train" if split == "pretrain" else split]
        _check_files(folder, [name for name, _ in chosen])
    files = ImageFiles(folder, [name for name, _ in chosen], config, published=True)
    return ImageSet(config.name, files, [label for _, label in chosen], class_names)


def list_class_folders(folder: Path) -> list[str]:
    """Return the names of the folders in a folder, of which each has the images of one class.

    Raises:
        TreeFault: If there is no such folder.
    """
    if not folder.is_dir():
        raise TreeFault(f"no folder '{folder}'")
    return class_folders(folder).names


def number_classes(
    path: Path, images: Iterable[tuple[str, str]], class_names: Sequence[str]
) -> list[tuple[str, int]]:
    """Replace the class name of each listed image by its number.

    Args:
        path: The list, for errors.
        images: Path and class name of each image.
        class_names: Names by class index.

    Raises:
        TreeFault: If a class is unknown.
    """
    number = {name: index for index, name in enumerate(class_names)}
    found = []
    for name, class_name in images:
        if class_name not in number:
            raise TreeFault(f"'{path}' lists '{name}' of the unknown class '{class_name}'")
        found.append((name, number[class_name]))
    return found


def _check_classes(
    folder: Path,
    num_classes: int | None,
    class_names: Sequence[str],
    images: Sequence[tuple[str, int]],
) -> None:
    assert num_classes is not None
    if len(set(class_names)) != num_classes or len(class_names) != num_classes:
        raise TreeFault(f"'{folder}' has {len(set(class_names))} classes, expected {num_classes}")
    labels = {label for _, label in images}
    outside = sorted(labels - set(range(num_classes)))
    if outside:
        raise TreeFault(
            f"the lists in '{folder}' number a class {outside[0]}, expected 0 … {num_classes - 1}"
        )
    empty = [class_names[label] for label in sorted(set(range(num_classes)) - labels)]
    if empty:
        raise TreeFault(
            f"the lists in '{folder}' have no image of {len(empty)} classes: {first_of(empty)}"
        )


def _check_distinct(folder: Path, names: Sequence[str]) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise TreeFault(
            f"the lists in '{folder}' name {len(twice):,} images twice: {first_of(twice)}"
        )


def _check_files(folder: Path, names: Sequence[str]) -> None:
    # One listing per folder instead of one system call per image.
    present = {parent: _files_in(folder / parent) for parent in {_parent(name) for name in names}}
    missing = [name for name in names if os.path.basename(name) not in present[_parent(name)]]
    if missing:
        raise TreeFault(
            f"{len(missing):,} of {len(names):,} listed images are not in '{folder}': "
            f"{first_of(missing)}"
        )


def _parent(name: str) -> str:
    return name.rpartition("/")[0]


def _files_in(folder: Path) -> set[str]:
    try:
        return set(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: no name of a folder
        return set()
    except OSError as error:
        raise TreeFault(f"cannot list '{folder}': {error.strerror}") from None
