"""Define what every data set provides: its facts, how to open it and how to download it."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from rsa_pretrain.data.image_set import ImageSet
    from rsa_pretrain.data.settings import RGB, DataConfig
    from rsa_pretrain.data.shards.stream import ShardSet

Split = Literal["train", "test"]
# STL-10 pretrains on more images than have labels; elsewhere this is the training split. The
# validation images are those training images that their publisher sets aside to choose settings.
AnySplit = Literal["pretrain", "train", "val", "test"]


@dataclass(frozen=True)
class Counts:
    """Published numbers of one split; None where nothing is published or the classes differ."""

    images: int | None = None
    classes: int | None = None
    images_per_class: int | None = None


@dataclass(frozen=True)
class DataSet:
    """One data set. Its module imports torch and image libraries only when the set is opened."""

    name: str
    """As ``data.name``."""
    label: str
    """Name used in papers."""
    normalisation: tuple[RGB, RGB]
    """Published mean and standard deviation of the training pixels, for pixels in [0, 1]."""
    open: Callable[[DataConfig, AnySplit], ImageSet | ShardSet]
    """Open a split. ``UserError`` says what is missing and how to get it."""
    download: Callable[[Path, str | None], None]
    """Download the published files below a root, from their own address or a mirror.

    Does nothing if they are there. ``UserError`` says what went wrong or, if nothing can be
    downloaded, how to get the files.
    """
    counts: Mapping[AnySplit, Counts] = field(default_factory=dict)
    """Published numbers of each split, including ``pretrain`` where it is more than ``train``.

    ``val`` is there only if a validation split is published; its images are in ``train`` too.
    """
    folders: tuple[str, ...] = ()
    """Folders below the root, one of which must exist; empty: ``data.train_dir``."""
    location: tuple[str, ...] = ("root",)
    """Settings, one of which must say where the files are; empty: the images are embedded."""
    settings: tuple[str, ...] = ()
    """Settings that only this data set has."""
    is_pixels: bool = False
    """Stored as pixels: the rules of reading image files do not apply."""
    metric: Literal["top1", "mean_per_class"] = "top1"
    """Accuracy that the literature reports for this set: of all images, or the mean over classes
    (Kornblith et al. 2019, Table 1)."""


def download_command(name: str, root: Path) -> str:
    """Return the command that downloads a data set, for messages."""
    return f"`rsa-pretrain download {name} {shlex.quote(str(root))}`"
