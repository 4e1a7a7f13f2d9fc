"""Explain what differs between a folder and the published data set that it should contain."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rsa_pretrain.data.sets.base import AnySplit, Counts, download_command
from rsa_pretrain.data.sets.imagenet import IMAGENET
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.regular_files import open_regular

if TYPE_CHECKING:
    import numpy.typing as npt

# The transfer suite takes the pixels of every set as the ImageNet-trained network saw its own, so
# its sets state ImageNet's statistics (Kornblith et al. 2019; torchvision's weights). An evaluation
# takes those that the checkpoint states.
TRANSFER_NORMALISATION = IMAGENET.normalisation


class TreeFault(Exception):
    """A difference from the published files; ``faults_explained`` adds what to do about it."""


@contextmanager
def faults_explained(
    name: str, folder: Path, how_to_get: Callable[[Path], str] | None = None
) -> Iterator[None]:
    """Turn faults of a published folder into errors that say what to do.

    Args:
        name: The data set's name.
        folder: Its folder, directly in ``data.root``.
        how_to_get: Says where the files come from, for a root, if they cannot be downloaded.

    Raises:
        UserError: If the folder is not there, or a ``TreeFault`` is raised inside.
    """
    root = folder.parent
    if not folder.is_dir():
        raise UserError(f"'{folder}' is not a folder; {_where_instead(name, folder, how_to_get)}")
    try:
        yield
    except TreeFault as fault:
        if (folder / folder.name).is_dir():
            raise UserError(
                f"{fault}; data.root should be the folder that contains the inner "
                f"'{folder.name}': '{folder}'"
            ) from None
        if how_to_get is not None:
            raise UserError(f"{fault}; {how_to_get(root)}") from None
        raise UserError(
            f"{fault}; move '{folder}' away and run {download_command(name, root)}"
        ) from None


def _where_instead(name: str, folder: Path, how_to_get: Callable[[Path], str] | None) -> str:
    """Say what to do, judging by what is there instead of the folder."""
    root = folder.parent
    if root.resolve().name == folder.name:
        return f"data.root should be the folder that contains it: '{root.resolve().parent}'"
    below = sorted(root.glob(f"*/{folder.name}"))
    if below:
        return f"data.root should be the folder that contains it: '{below[0].parent}'"
    return f"run {download_command(name, root)}" if how_to_get is None else how_to_get(root)


def check_count(
    folder: Path, counts: Mapping[AnySplit, Counts], split: AnySplit, found: int
) -> None:
    """Compare a split's number of images with the published one.

    Raises:
        TreeFault: If they differ: results would be of another set under the published name.
    """
    published = counts["train" if split == "pretrain" else split].images
    if found != published:
        raise TreeFault(f"'{folder}' has {found:,} {split} images, published are {published:,}")


def read_lines(path: Path) -> list[str]:
    """Return the lines of a published list, without surrounding blanks and without empty lines.

    Raises:
        TreeFault: If it cannot be read, is no text or has no line.
    """
    lines = [line.strip() for line in read_published(path).splitlines()]
    found = [line for line in lines if line]
    if not found:
        raise TreeFault(f"'{path}' is empty")
    return found


def read_published(path: Path) -> str:
    """Return the text of a published file.

    Raises:
        TreeFault: If it cannot be read or is no text.
    """
    try:
        return read_published_bytes(path).decode()
    except UnicodeDecodeError:
        raise TreeFault(f"'{path}' is not UTF-8 text") from None


def read_published_bytes(path: Path) -> bytes:
    """Return the content of a published file.

    Raises:
        TreeFault: If it cannot be read.
    """
    try:
        with open_regular(path) as file:
            return file.read()
    except FileNotFoundError:
        raise TreeFault(f"no '{path}'") from None
    except OSError as error:
        raise TreeFault(f"cannot read '{path}': {error.strerror}") from None


def whole_numbers(path: Path, array: npt.NDArray[Any], lowest: int, highest: int) -> list[int]:
    """Return the values of an array of any shape, in order.

    Args:
        path: Its file, for errors.
        array: Numbers of any type, whose fractions must be zero.
        lowest: Smallest valid number.
        highest: Largest valid number.

    Raises:
        TreeFault: If there is none, or one that is not valid.
    """
    values = array.reshape(-1).tolist()
    valid = set(range(lowest, highest + 1))
    if not values or not all(isinstance(value, int | float) and value in valid for value in values):
        raise TreeFault(f"'{path}' should have whole numbers from {lowest} to {highest} alone")
    return [int(value) for value in values]
