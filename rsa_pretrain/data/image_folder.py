"""Find, check and read image files under a folder tree."""

from __future__ import annotations

import logging
import os
import unicodedata
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, NoReturn

from rsa_pretrain.data.read_settings import ReadRules
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.name_lists import first_of
from rsa_pretrain.plumbing.regular_files import open_regular
from rsa_pretrain.plumbing.system_files import is_system

if TYPE_CHECKING:
    from PIL import Image

_log = logging.getLogger(__name__)

_SYSTEM = "hidden, or made by a system"


class ImageFiles:
    """Files below a folder, as the sources of an image set.

    The paths share one byte string: a million ``Path`` objects would take a gigabyte, in each
    loader process.

    Args:
        folder: Root of the files.
        names: Paths relative to it, with forward slashes.
        rules: How to read them.
        published: The files are those of a published data set, so names alone identify them;
            otherwise sizes do so too, which costs a system call each.
    """

    def __init__(
        self, folder: Path, names: Sequence[str], rules: ReadRules, *, published: bool = False
    ) -> None:
        self.folder = folder
        self.rules = rules
        self.published = published
        encoded = [os.fsencode(name) for name in names]
        self._names = b"".join(encoded)
        self._ends = array("q", accumulate(map(len, encoded), initial=0))

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
        from rsa_pretrain.data.image_sources import read_encoded

        return read_encoded(self, index).read()

    def content(self, index: int) -> bytes:
        """Read a file."""
        with open_regular(Path(self.path(index))) as file:
            return file.read()

    def where(self, index: int) -> str:
        """Return a path."""
        return self.path(index)

    def identity(self, index: int) -> bytes:
        """Return the path's last two parts and, for a user's own files, the size."""
        path = self.path(index)
        parent, name = os.path.split(path)
        size = "" if self.published else f" {os.stat(path).st_size}"
        return os.fsencode(f"{os.path.basename(parent)}/{name}{size}\n")

    def key(self, index: int) -> str:
        """Return the path relative to the folder."""
        return self.name(index)


def class_of(name: str) -> str | None:
    """Return the first folder of a relative path, None if there is none.

    It is in Unicode's composed form: macOS stores accents as separate characters, and the same
    name must be the same class.
    """
    folder, slash, _ = name.partition("/")
    return unicodedata.normalize("NFC", folder) if slash else None


class FolderListing(NamedTuple):
    """The contents of a folder, by paths relative to it.

    Attributes:
        names: Files or folders that count, in the order of the paths' parts.
        left_out: Why a folder does not count, by its path.
    """

    names: list[str]
    left_out: dict[str, str]


def find_images(
    folder: Path,
    key: str,
    on_broken: Literal["error", "skip", "unchecked"],
    rules: ReadRules,
) -> FolderListing:
    """List the images below a folder, in a fixed order.

    Every file that ``walk`` finds counts.

    Args:
        folder: Root of the split.
        key: Name of the setting that chose the folder, for errors.
        on_broken: ``error`` decodes every file and refuses unreadable images; ``skip`` skips them
            with a counted warning; ``unchecked`` decodes nothing.
        rules: How to read them.

    Raises:
        UserError: If there is no folder, no image in it, or (``error``) a broken file.
    """
    if not folder.is_dir():
        raise UserError(
            f"'{folder}' ({key}) is not a folder; expected {folder}/CLASS/IMAGE files, "
            f"or set {key} (`.` reads every image below data.root)"
        )
    names, left_out = walk(folder)
    if on_broken != "unchecked":
        names = _without_broken(folder, names, on_broken, rules)
    if not names:
        raise UserError(
            f"no image below '{folder}' ({key}); expected {folder}/CLASS/IMAGE files; correct "
            f"data.root or {key}"
        )
    return FolderListing(names, left_out)


def walk(folder: Path, subfolders: Iterable[str] = ("",)) -> FolderListing:
    """List the files below some subfolders.

    Args:
        folder: Root.
        subfolders: Where to look; the root itself by default.

    Raises:
        OSError: If a folder cannot be listed.
    """
    left_out: dict[str, str] = {}
    names = [
        prefix + name
        for prefix, files in walk_folders(folder, left_out, subfolders)
        for name in files
    ]
    return FolderListing(sorted(names, key=lambda name: name.split("/")), left_out)


def walk_folders(
    folder: Path, left_out: dict[str, str], subfolders: Iterable[str] = ("",)
) -> Iterator[tuple[str, Iterator[str]]]:
    """Yield each folder, as the prefix of its files' paths, and their names in no fixed order.

    Hidden files and folders and those of operating systems and archivers are left out. Links to
    folders are followed only if they lead out of the tree to files not seen before: otherwise the
    same images would appear twice, perhaps under two classes.

    Args:
        folder: Root.
        left_out: Receives the reason why each folder was left out, by its path.
        subfolders: As for ``walk``.

    Raises:
        OSError: If a folder cannot be listed.
    """
    seen = _Trees(folder)
    for start in subfolders:
        if start and os.path.islink(folder / start) and not seen.add(folder / start):
            left_out[start] = _link(folder / start)
            continue
        for directory, below, files in os.walk(folder / start, onerror=_refuse, followlinks=True):
            prefix = os.path.relpath(directory, folder)
            prefix = "" if prefix == "." else prefix.replace(os.sep, "/") + "/"
            kept = []
            for name in sorted(below):
                path = os.path.join(directory, name)
                if is_system(name):
                    left_out[prefix + name] = _SYSTEM
                elif os.path.islink(path) and not seen.add(path):
                    left_out[prefix + name] = _link(path)
                else:
                    kept.append(name)
            below[:] = kept
            yield prefix, (name for name in files if not is_system(name))


def _refuse(error: OSError) -> NoReturn:
    # By default os.walk skips a folder that it may not read.
    raise error


def _link(path: str | Path) -> str:
    return f"a link to '{os.readlink(path)}', which is there already"


class _Trees:
    """Folder trees that do not overlap."""

    def __init__(self, folder: Path) -> None:
        self.roots: set[str] = set()
        self.above: set[str] = set()
        self.add(folder)

    def add(self, folder: str | Path) -> bool:
        """Add a tree unless it is in another or contains one; return whether it was added."""
        real = os.path.realpath(folder)
        parents = [str(parent) for parent in Path(real).parents]
        if real in self.roots or real in self.above or not self.roots.isdisjoint(parents):
            return False
        self.roots.add(real)
        self.above.update(parents)
        return True


def class_folders(folder: Path) -> FolderListing:
    """List the folders in a folder, without hidden and system ones."""
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries if entry.is_dir())
    left_out = {name: _SYSTEM for name in names if is_system(name)}
    return FolderListing([name for name in names if name not in left_out], left_out)


def report_left_out(folder: Path, left_out: Mapping[str, str]) -> None:
    """Log in one line which folders below a folder do not count, and why."""
    if left_out:
        told = [f"{name} ({why})" for name, why in sorted(left_out.items())]
        _log.warning("folders left out below '%s': %s", folder, first_of(told))


def report_empty_classes(folder: Path, class_names: Sequence[str], labels: Iterable[int]) -> None:
    """Log which classes of a published training split have no image."""
    present = set(labels)
    empty = [name for label, name in enumerate(class_names) if label not in present]
    if empty:
        _log.warning("no image below '%s' of %d classes: %s", folder, len(empty), first_of(empty))


def _without_broken(
    folder: Path, names: list[str], on_broken: Literal["error", "skip"], rules: ReadRules
) -> list[str]:
    from rsa_pretrain.data.decode import fault_of
    from rsa_pretrain.plumbing.threads import map_in_threads

    paths = [os.path.join(folder, name) for name in names]
    check = partial(fault_of, rules=rules)
    faults = list(map_in_threads(check, paths, "checking images", "img"))
    broken = [
        f"{path} ({fault})" for path, fault in zip(paths, faults, strict=True) if fault is not None
    ]
    if not broken:
        return names
    shown = first_of(broken)
    if on_broken == "error":
        raise UserError(
            f"{len(broken)} of {len(names)} files below '{folder}' are not readable images: "
            f"{shown}; fix or remove them, or set data.on_broken=skip"
        )
    _log.warning(
        "skipping %d of %d files below '%s' that are not readable images: %s",
        len(broken),
        len(names),
        folder,
        shown,
    )
    return [name for name, fault in zip(names, faults, strict=True) if fault is None]
