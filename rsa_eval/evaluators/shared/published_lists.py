"""Check the lists of a published multi-label set against its publisher's numbers."""

import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.name_lists import first_of


@dataclass(frozen=True)
class PublishedLists:
    """Numbers that a publisher states."""

    images: Mapping[str, int]
    """Images of each split."""
    num_classes: int


PUBLISHED_LISTS = {
    # Everingham et al. 2010, Table 2.
    "voc2007": PublishedLists(
        {"train": 2_501, "val": 2_510, "trainval": 5_011, "test": 4_952}, num_classes=20
    )
}
"""By the name in records, which published numbers stand beside."""


def check_published(
    name: str, split: str, root: Path, files: Sequence[str], class_names: Sequence[str]
) -> None:
    """Check that a split of a published set is whole; other names and splits are not checked.

    Args:
        name: The set's name in records.
        split: Name of the lists.
        root: Folder of the set.
        files: Paths of the listed images below it.
        class_names: Classes that have a list.

    Raises:
        UserError: If a number differs from the published one, or a listed image is not there.
    """
    published = PUBLISHED_LISTS.get(name)
    if published is None or split not in published.images:
        return
    found, expected = len(set(files)), published.images[split]
    remedy = (
        f"move '{root}' away and run {download_voc_command('FOLDER')}, or name images of your own "
        "by another multi_label.name"
    )
    if (found, len(class_names)) != (expected, published.num_classes):
        raise UserError(
            f"the lists of '{split}' in '{root}' have {found:,} images and {len(class_names)} "
            f"classes, as published {name} has {expected:,} and {published.num_classes}; {remedy}"
        )
    # One listing per folder instead of one system call per image.
    present = {folder: _files_in(root / folder) for folder in map(os.path.dirname, set(files))}
    missing = [
        file for file in files if os.path.basename(file) not in present[os.path.dirname(file)]
    ]
    if missing:
        raise UserError(
            f"{len(missing):,} of {len(files):,} images that '{split}' of {name} lists are not in "
            f"'{root}': {first_of(missing)}; {remedy}"
        )


def download_voc_command(root: Path | str) -> str:
    """Return the command that downloads VOC2007 below a folder, for messages."""
    return f"`rsa-detect download voc2007 {shlex.quote(str(root))}`"


def _files_in(folder: Path) -> set[str]:
    try:
        return set(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return set()
    except OSError as error:
        raise UserError(f"cannot list '{folder}': {error.strerror}") from None
