"""Open published trees of image files, of which lists beside them say the class and the split."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rsa_pretrain.data.image_folder import ImageFiles
from rsa_pretrain.data.sets.base import AnySplit
from rsa_pretrain.data.sets.published_tree import TreeFault, faults_explained
from rsa_pretrain.plumbing.name_lists import first_of

if TYPE_CHECKING:
    from rsa_pretrain.data.image_set import ImageSet
    from rsa_pretrain.data.settings import DataConfig

# A part as published: where there is validation, "train" is without it.
ListedPart = Literal["train", "val", "test"]


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
class ListedTree:
    """The layout of a set.

    Attributes:
        name: As ``data.name``.
        folder: Its folder in ``data.root``.
        num_classes: Published number of classes.
        read: Lists a part, for the path of the folder; raises ``TreeFault``.
        has_val: A validation part is published beside the training part.
        how_to_get: Says for a root where the files come from, if they cannot be downloaded.
    """

    name: str
    folder: str
    num_classes: int
    read: Callable[[Path, ListedPart], Listing]
    has_val: bool = False
    how_to_get: Callable[[Path], str] | None = None


def open_listed(config: DataConfig, split: AnySplit, tree: ListedTree) -> ImageSet:
    """Open a split; its images are in the published order, validation after training.

    Nothing is decoded: a damaged file fails when it is first read, and data-check names all. The
    numbers of images are compared with the published ones by data-check and download alone.

    Args:
        config: Where it is and how its files are read.
        split: ``train`` and ``pretrain`` include the validation part.
        tree: The layout.

    Raises:
        UserError: If a list or an image is missing or the lists are not as published.
    """
    from rsa_pretrain.data.image_set import ImageSet

    assert config.root is not None
    folder = config.root / tree.folder
    parts: tuple[ListedPart, ...] = (split,) if split in ("val", "test") else ("train",)
    if parts == ("train",) and tree.has_val:
        parts = ("train", "val")
    with faults_explained(tree.name, folder, tree.how_to_get):
        listings = [tree.read(folder, part) for part in parts]
        class_names = listings[0].class_names
        images = [image for listing in listings for image in listing.images]
        _check_classes(folder, tree.num_classes, class_names, [label for _, label in images])
        _check_files(folder, [name for name, _ in images])
    files = ImageFiles(folder, [name for name, _ in images], config, published=True)
    return ImageSet(tree.name, files, [label for _, label in images], class_names)


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
    folder: Path, num_classes: int, class_names: Sequence[str], labels: Sequence[int]
) -> None:
    if len(set(class_names)) != num_classes or len(class_names) != num_classes:
        raise TreeFault(f"'{folder}' has {len(set(class_names))} classes, expected {num_classes}")
    outside = sorted(set(labels) - set(range(num_classes)))
    if outside:
        raise TreeFault(
            f"the lists in '{folder}' number a class {outside[0]}, expected 0 … {num_classes - 1}"
        )
    empty = [class_names[label] for label in sorted(set(range(num_classes)) - set(labels))]
    if empty:
        raise TreeFault(
            f"the lists in '{folder}' have no image of {len(empty)} classes: {first_of(empty)}"
        )


def _check_files(folder: Path, names: Sequence[str]) -> None:
    if len(set(names)) < len(names):
        twice = next(name for name, count in Counter(names).items() if count > 1)
        raise TreeFault(f"the lists in '{folder}' name '{twice}' twice")
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
    except (FileNotFoundError, NotADirectoryError):
        return set()
    except OSError as error:
        raise TreeFault(f"cannot list '{folder}': {error.strerror}") from None
