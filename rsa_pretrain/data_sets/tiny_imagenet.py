"""Tiny ImageNet: 200 classes at 64 px, as distributed or with the validation images sorted."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
from torch import Tensor

from rsa_pretrain.data_config import DataConfig
from rsa_pretrain.data_sets import AnySplit
from rsa_pretrain.errors import UserError
from rsa_pretrain.image_folder import (
    ImageFiles,
    class_folders,
    report_empty_classes,
    report_left_out,
    walk,
)
from rsa_pretrain.image_set import ImageSet
from rsa_pretrain.image_sources import read_encoded
from rsa_pretrain.parallel import map_in_threads

NUM_CLASSES = 200
URL = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"

_FOLDER = "tiny-imagenet-200"
_SIDE = 64


class TinyFiles(ImageFiles):
    """Image files that may be held in memory: 1.2 GB for the training split."""

    def array(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        """Decode some images, uint8 (N, 64, 64, 3).

        Raises:
            UserError: If one cannot be decoded or has another size.
        """
        array = np.empty((len(rows), _SIDE, _SIDE, 3), np.uint8)
        decoded = map_in_threads(self._decode, rows.tolist(), "decoding images", "img")
        for position, pixels in enumerate(decoded):
            array[position] = pixels.permute(1, 2, 0)
        return array

    def _decode(self, index: int) -> Tensor:
        pixels = read_encoded(self, index).pixels()
        if pixels.shape[1:] != (_SIDE, _SIDE):
            raise UserError(
                f"'{self.where(index)}' has {pixels.shape[1]} x {pixels.shape[2]} pixels, Tiny "
                f"ImageNet's images have {_SIDE} x {_SIDE}; unpack {URL} again, or use "
                "data.name=imagefolder for other images"
            )
        return pixels


def open_split(config: DataConfig, split: AnySplit) -> ImageSet:
    """Open a split from ``root/tiny-imagenet-200/``, or from the root itself.

    Training images lie in ``train/CLASS/images/`` or ``train/CLASS/``. Test images are those of
    ``val/``: as distributed in ``val/images/``, their classes in ``val/val_annotations.txt``, or
    in class folders like the training images. (The published ``test/`` has no classes.)
    """
    assert config.root is not None
    folder = config.root / _FOLDER
    if not folder.is_dir():
        folder = config.root
    class_names = _classes(folder, config.root)
    below = folder / ("val" if split == "test" else "train")
    if not below.is_dir():
        raise _missing(f"'{below}' is not a folder", config.root)
    if split == "test" and (below / "images").is_dir() and walk(below, ["images"]).names:
        names, classes = _annotated(below)
    else:
        names, classes = _sorted_by_class(below)
    unknown = sorted(set(classes) - set(class_names))
    if unknown:
        raise UserError(f"'{below}' holds classes that train/ lacks: {', '.join(unknown[:5])}")
    if not names:
        raise _missing(f"no image below '{below}'", config.root)
    number = {name: index for index, name in enumerate(class_names)}
    labels = [number[name] for name in classes]
    if split != "test":
        report_empty_classes(below, class_names, labels)
    files = TinyFiles(below, names, config, published=True)
    return ImageSet("tiny_imagenet", files, labels, class_names)


def _classes(folder: Path, root: Path) -> list[str]:
    train = folder / "train"
    if not train.is_dir():
        raise _missing(f"'{train}' is not a folder", root)
    names = class_folders(train).names
    if len(names) != NUM_CLASSES:
        raise UserError(
            f"'{train}' holds {len(names)} class folders, Tiny ImageNet has {NUM_CLASSES}; unpack "
            f"{URL} again, or use data.name=imagefolder for another set of classes"
        )
    return names


def _annotated(val: Path) -> tuple[list[str], list[str]]:
    annotations = val / "val_annotations.txt"
    if not annotations.is_file():
        raise UserError(
            f"'{val}/images' needs '{annotations}', whose lines are NAME, tab, CLASS, tab, box; "
            f"unpack {URL} again, or sort the images into '{val}/CLASS/'"
        )
    lines = [line.split("\t") for line in annotations.read_text(encoding="utf-8").splitlines()]
    malformed = [number for number, parts in enumerate(lines, 1) if len(parts) < 2]
    if malformed:
        raise UserError(f"line {malformed[0]} of '{annotations}' is not NAME, tab, CLASS, …")
    class_of = {f"images/{name}": class_name for name, class_name, *_ in lines}
    names, left_out = walk(val, ["images"])
    report_left_out(val, left_out)
    differing = sorted(set(names) ^ set(class_of))
    if differing:
        raise UserError(
            f"'{annotations}' and '{val}/images' disagree on {len(differing)} files, the first is "
            f"{differing[0]}; unpack {URL} again"
        )
    return names, [class_of[name] for name in names]


def _sorted_by_class(folder: Path) -> tuple[list[str], list[str]]:
    folders, left_out = class_folders(folder)
    found, left_out_below = walk(folder, folders)
    report_left_out(folder, left_out | left_out_below)
    # Each training class also has a text file of boxes.
    names = [name for name in found if not name.endswith("_boxes.txt")]
    return names, [name.partition("/")[0] for name in names]


def _missing(found: str, root: Path) -> UserError:
    return UserError(
        f"{found}; download {URL} and unpack it in '{root}' (data.root), so that "
        f"{root}/{_FOLDER}/ holds train/CLASS/images/*.JPEG, val/images/*.JPEG and "
        "val/val_annotations.txt (or val/CLASS/*.JPEG)"
    )
