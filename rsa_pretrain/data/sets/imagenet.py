"""ImageNet-1K and subsets of its classes: the usual trees of one folder per WordNet id."""

from __future__ import annotations

import re
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from rsa_pretrain.data.image_folder import (
    ImageFiles,
    class_folders,
    report_empty_classes,
    report_left_out,
    walk,
)
from rsa_pretrain.data.sets.base import AnySplit, Counts, DataSet
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.name_lists import first_of
from rsa_pretrain.plumbing.text_files import read_text

if TYPE_CHECKING:
    from rsa_pretrain.data.image_set import ImageSet
    from rsa_pretrain.data.settings import DataConfig

NUM_CLASSES = 1000

_WORDNET_ID = re.compile(r"n\d{8}")


def _open(config: DataConfig, split: AnySplit) -> ImageSet:
    """Open ``root/train_dir`` or ``root/test_dir``; classes are numbered in the order of their ids.

    Nothing is decoded: a damaged file fails when it is first read, and data-check names all.
    """
    from rsa_pretrain.data.image_set import ImageSet

    assert config.root is not None
    key = "test_dir" if split == "test" else "train_dir"
    folder = config.root / getattr(config, key)
    _check_folder(config, folder, f"data.{key}")
    found, left_out = class_folders(folder)
    if split == "test" and not found:
        raise UserError(
            f"'{folder}' has no class folders, as unpacked from ILSVRC2012_img_val.tar; move each "
            f"image to {folder}/WNID/, following ILSVRC2012_validation_ground_truth.txt of the "
            "development kit (ILSVRC2012_devkit_t12.tar.gz)"
        )
    class_names = _classes(config, folder, found)
    if split == "test":
        _check_numbering(config.root / config.train_dir, folder, class_names)
    names, left_out_below = walk(folder, class_names)
    report_left_out(folder, left_out | left_out_below)
    if not names:
        raise UserError(
            f"no image below '{folder}' (data.{key}); expected {folder}/WNID/*.JPEG; correct "
            f"data.root or data.{key}"
        )
    number = {name: index for index, name in enumerate(class_names)}
    labels = [number[name.partition("/")[0]] for name in names]
    if split != "test":
        report_empty_classes(folder, class_names, labels)
    files = ImageFiles(folder, names, config, published=True)
    return ImageSet(config.name, files, labels, class_names)


def read_class_list(path: Path | None) -> list[str]:
    """Read WordNet ids, one per line; None reads the usual 100 classes, shipped with the package.

    Returns:
        The ids, sorted.

    Raises:
        UserError: If a line is not a WordNet id or is repeated.
    """
    if path is None:
        text = resources.files("rsa_pretrain.data.sets").joinpath("imagenet100.txt").read_text()
    else:
        text = read_text(path, what="data.class_list")
    ids = text.split()
    wrong = [word for word in ids if not _WORDNET_ID.fullmatch(word)]
    if wrong or not ids:
        raise UserError(
            f"data.class_list '{path}' should list WordNet ids like n01558993, one per line; found "
            f"'{wrong[0] if wrong else 'nothing'}'"
        )
    if len(set(ids)) < len(ids):
        twice = next(name for name in ids if ids.count(name) > 1)
        raise UserError(f"data.class_list '{path}' names {twice} twice")
    return sorted(ids)


def _check_folder(config: DataConfig, folder: Path, key: str) -> None:
    if not folder.is_dir():
        raise UserError(
            f"'{folder}' ({key}) is not a folder; {config.name} needs the ImageNet tree: "
            f"{_how_to_get(config.root, config.train_dir, config.test_dir)}"
        )


def _how_to_get(root: Path | None, train: str = "train", test: str = "val") -> str:
    return (
        "download ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar from "
        "https://image-net.org/challenges/LSVRC/2012/ (free registration) and unpack them as "
        f"{root}/{train}/WNID/*.JPEG and {root}/{test}/WNID/*.JPEG, one folder per class"
    )


def _check_numbering(train: Path, test: Path, class_names: list[str]) -> None:
    """Refuse test classes that training would number differently."""
    if not train.is_dir():
        return
    missing = sorted(set(class_names) - set(class_folders(train).names))
    if missing:
        raise UserError(
            f"'{train}' lacks {len(missing)} classes of '{test}', so that the two number their "
            f"classes differently: {first_of(missing)}; complete '{train}' or remove them from "
            f"'{test}'"
        )


def _classes(config: DataConfig, folder: Path, found: list[str]) -> list[str]:
    if config.name == "imagenet100":
        wanted = read_class_list(config.class_list)
        missing = sorted(set(wanted) - set(found))
        if missing:
            raise UserError(
                f"'{folder}' lacks {len(missing)} of the {len(wanted)} classes of the list: "
                f"{first_of(missing)}; it should be an "
                "ImageNet tree with one folder per WordNet id"
            )
        return wanted
    # Classes are numbered in the order of their ids; other names would change the numbers.
    unknown = [name for name in found if not _WORDNET_ID.fullmatch(name)]
    if unknown:
        raise UserError(
            f"'{folder}' contains the folder '{unknown[0]}'; expected one per class, named by its "
            "WordNet id like n01558993"
        )
    if len(found) != NUM_CLASSES:
        raise UserError(
            f"'{folder}' has {len(found)} class folders, ImageNet-1K has {NUM_CLASSES}; complete "
            "it, or use data.name=imagefolder for another set of classes"
        )
    return found


def _download(root: Path, url: str | None) -> NoReturn:
    raise UserError(f"ImageNet's terms of access allow no automatic download; {_how_to_get(root)}")


IMAGENET = DataSet(
    name="imagenet",
    label="ImageNet-1K",
    normalisation=((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    open=_open,
    download=_download,
    counts={"train": Counts(1_281_167, NUM_CLASSES), "test": Counts(50_000, NUM_CLASSES, 50)},
)
IMAGENET100 = replace(
    IMAGENET,
    name="imagenet100",
    label="ImageNet-100",
    # For the usual 100 classes; for a user's list only the last number applies.
    counts={"train": Counts(126_689, 100), "test": Counts(5_000, 100, 50)},
    settings=("class_list",),
)
