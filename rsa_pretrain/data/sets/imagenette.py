"""Imagenette: ten classes of ImageNet that are easy to distinguish, the short side 160 px."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rsa_pretrain.data.image_folder import (
    ImageFiles,
    class_folders,
    report_empty_classes,
    report_left_out,
    walk,
)
from rsa_pretrain.data.sets.base import AnySplit, Counts, DataSet, download_command
from rsa_pretrain.data.sets.imagenet import IMAGENET
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.fetch import Archive, fetch
from rsa_pretrain.plumbing.name_lists import first_of

if TYPE_CHECKING:
    from rsa_pretrain.data.image_set import ImageSet
    from rsa_pretrain.data.settings import DataConfig

# Tench, English springer, cassette player, chain saw, church, French horn, garbage truck, gas pump,
# golf ball and parachute.
WORDNET_IDS = [
    *("n01440764", "n02102040", "n02979186", "n03000684", "n03028079"),
    *("n03394916", "n03417042", "n03425413", "n03445777", "n03888257"),
]

_FOLDER = "imagenette2-160"
# Version 2; address and checksum as in torchvision.datasets.Imagenette.
IMAGENETTE_ARCHIVE = Archive(
    "https://s3.amazonaws.com/fast-ai-imageclas/imagenette2-160.tgz",
    "e793b78cc4c9e9a4ccc0c1155377a412",
    _FOLDER,
)


def _open(config: DataConfig, split: AnySplit) -> ImageSet:
    """Open ``root/imagenette2-160/train`` or ``val``; the order of their ids numbers the classes.

    Nothing is decoded: a damaged file fails when it is first read, and data-check names all.
    """
    from rsa_pretrain.data.image_set import ImageSet

    assert config.root is not None
    folder = config.root / _FOLDER / ("val" if split == "test" else "train")
    if not folder.is_dir():
        raise UserError(f"'{folder}' is not a folder; {_remedy(config.root)}")
    found, left_out = class_folders(folder)
    if found != WORDNET_IDS:
        differing = sorted(set(found) ^ set(WORDNET_IDS))
        raise UserError(
            f"'{folder}' has {len(found)} class folders, not Imagenette's {len(WORDNET_IDS)}: "
            f"missing or unknown are {first_of(differing)}; {_remedy(config.root)}, or use "
            "data.name=imagefolder for another set of classes"
        )
    names, left_out_below = walk(folder, WORDNET_IDS)
    report_left_out(folder, left_out | left_out_below)
    if not names:
        raise UserError(f"no image below '{folder}'; {_remedy(config.root)}")
    number = {name: index for index, name in enumerate(WORDNET_IDS)}
    labels = [number[name.partition("/")[0]] for name in names]
    if split != "test":
        report_empty_classes(folder, WORDNET_IDS, labels)
    files = ImageFiles(folder, names, config, published=True)
    return ImageSet("imagenette", files, labels, WORDNET_IDS)


def _remedy(root: Path) -> str:
    """Say what to do, judging by what is there instead of the images."""
    if root.resolve().name == _FOLDER:
        return f"data.root should be the folder that contains it: '{root.resolve().parent}'"
    move = f"move '{root / _FOLDER}' away and " if (root / _FOLDER).exists() else ""
    return f"{move}run {download_command('imagenette', root)}"


def _download(root: Path, url: str | None) -> None:
    fetch(IMAGENETTE_ARCHIVE, root, url)


IMAGENETTE = DataSet(
    name="imagenette",
    label="Imagenette",
    # Its images are ImageNet's, and so are the statistics.
    normalisation=IMAGENET.normalisation,
    open=_open,
    download=_download,
    counts={
        "train": Counts(9_469, len(WORDNET_IDS)),
        "test": Counts(3_925, len(WORDNET_IDS)),
    },
    folders=(_FOLDER,),
)
