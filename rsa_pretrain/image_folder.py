"""Image files under a folder tree: found, checked and read."""

import logging
import os
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from rsa_pretrain.decode import fault_of
from rsa_pretrain.errors import UserError
from rsa_pretrain.image_set import read_encoded
from rsa_pretrain.parallel import map_in_threads
from rsa_pretrain.read_rules import ReadRules

_log = logging.getLogger(__name__)

_SHOWN = 10


class ImageFiles:
    """Files below a folder, as the sources of an image set.

    The paths share one byte string: a million ``Path`` objects would take a gigabyte, in each
    loader process.

    Args:
        folder: Root of the files.
        names: Paths relative to it, with forward slashes.
        rules: How they are read.
        published: The files are those of a published data set, so their names identify them;
            otherwise their sizes do so too, which costs a system call each.
    """

    def __init__(
        self, folder: Path, names: Sequence[str], rules: ReadRules, *, published: bool = False
    ) -> None:
        self.folder = folder
        self.rules = rules
        self.published = published
        encoded = [os.fsencode(name) for name in names]
        self._names = b"".join(encoded)
        self._ends = np.cumsum([0, *map(len, encoded)])

    def __len__(self) -> int:
        return len(self._ends) - 1

    def name(self, index: int) -> str:
        """Return a path relative to the folder."""
        return os.fsdecode(self._names[self._ends[index] : self._ends[index + 1]])

    def path(self, index: int) -> str:
        """Return a path."""
        return os.path.join(self.folder, self.name(index))

    def read(self, index: int) -> tuple[Image.Image, str]:
        """Decode a file."""
        return read_encoded(self, index).read()

    def content(self, index: int) -> bytes:
        """Read a file."""
        return Path(self.path(index)).read_bytes()

    def where(self, index: int) -> str:
        """Return a path."""
        return self.path(index)

    def identity(self, index: int) -> bytes:
        """Return the path's last two parts and, of files of the user's own, the size."""
        path = self.path(index)
        parent, name = os.path.split(path)
        size = "" if self.published else f" {os.stat(path).st_size}"
        return os.fsencode(f"{os.path.basename(parent)}/{name}{size}\n")

    def first_folders(self) -> list[str | None]:
        """Return for each file the first folder of its path, None for a file without."""
        names = map(self.name, range(len(self)))
        return [name.partition("/")[0] if "/" in name else None for name in names]


def find_images(
    folder: Path,
    key: str,
    on_broken: Literal["error", "skip", "unchecked"],
    rules: ReadRules,
) -> ImageFiles:
    """List the images below a folder, in a fixed order.

    Every file counts except hidden ones (their name starts with a dot). Links to folders are
    followed.

    Args:
        folder: Root of the split.
        key: Name of the setting that chose the folder, for errors.
        on_broken: ``error`` decodes every file and refuses if some are no image; ``skip`` leaves
            those out with a counted warning; ``unchecked`` decodes nothing.
        rules: How they are read.

    Raises:
        UserError: If there is no folder, no image in it, or (``error``) a broken file.
    """
    if not folder.is_dir():
        raise UserError(
            f"'{folder}' ({key}) is not a folder; expected {folder}/CLASS/IMAGE files, "
            f"or set {key} (`.` takes every image below data.root)"
        )
    names = walk(folder)
    if on_broken != "unchecked":
        names = _without_broken(folder, names, on_broken, rules)
    if not names:
        raise UserError(f"no image below '{folder}' ({key})")
    return ImageFiles(folder, names, rules)


def walk(folder: Path, subfolders: Iterable[str] = ("",)) -> list[str]:
    """List the files below some subfolders, relative to the folder, in the order of their parts.

    Hidden files and folders are left out; links to folders are followed, but not back up the tree.

    Args:
        folder: Root.
        subfolders: Where to look; the root itself by default.
    """
    names: list[str] = []
    visited: set[str] = set()
    for start in subfolders:
        for directory, below, files in os.walk(folder / start, followlinks=True):
            real = os.path.realpath(directory)
            if real in visited:
                below.clear()
                continue
            visited.add(real)
            below[:] = sorted(name for name in below if not name.startswith("."))
            prefix = os.path.relpath(directory, folder)
            prefix = "" if prefix == "." else prefix.replace(os.sep, "/") + "/"
            names += [prefix + name for name in files if not name.startswith(".")]
    return sorted(names, key=lambda name: name.split("/"))


def class_folders(folder: Path) -> list[str]:
    """Return the sorted names of the folders in a folder, hidden ones left out."""
    with os.scandir(folder) as entries:
        return sorted(
            entry.name for entry in entries if entry.is_dir() and not entry.name.startswith(".")
        )


def _without_broken(
    folder: Path, names: list[str], on_broken: Literal["error", "skip"], rules: ReadRules
) -> list[str]:
    paths = [os.path.join(folder, name) for name in names]
    check = partial(fault_of, rules=rules)
    faults = list(map_in_threads(check, paths, "checking images", "img"))
    broken = [
        f"{path} ({fault})" for path, fault in zip(paths, faults, strict=True) if fault is not None
    ]
    if not broken:
        return names
    shown = ", ".join(broken[:_SHOWN])
    if len(broken) > _SHOWN:
        shown += f", and {len(broken) - _SHOWN} more"
    if on_broken == "error":
        raise UserError(
            f"{len(broken)} of {len(names)} files below '{folder}' are no image that can be read: "
            f"{shown}; mend or remove them, or set data.on_broken=skip"
        )
    _log.warning(
        "skipping %d of %d files below '%s' that are no image that can be read: %s",
        len(broken),
        len(names),
        folder,
        shown,
    )
    return [name for name, fault in zip(names, faults, strict=True) if fault is None]
