"""Tiny ImageNet: 200 classes at 64 px, as distributed or with the validation images sorted."""

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
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.fetch import Archive, fetch
from rsa_pretrain.plumbing.name_lists import first_of
from rsa_pretrain.plumbing.text_files import read_text

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from torch import Tensor

    from rsa_pretrain.data.image_set import ImageSet
    from rsa_pretrain.data.settings import DataConfig

NUM_TINY_CLASSES = 200

_FOLDER = "tiny-imagenet-200"
_SIDE = 64
# Stanford publishes no checksum; this is the one that Avalanche and others check.
ARCHIVE = Archive(
    "http://cs231n.stanford.edu/tiny-imagenet-200.zip", "90528d7ca1a48142e341f4ef8d21d0de", _FOLDER
)


class TinyFiles(ImageFiles):
    """Image files that may be kept in memory: 1.2 GB for the training split."""

    def array(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        """Decode some images, uint8 (N, 64, 64, 3).

        Raises:
            UserError: If one cannot be decoded or has another size.
        """
        import numpy as np

        from rsa_pretrain.plumbing.threads import map_in_threads

        array = np.empty((len(rows), _SIDE, _SIDE, 3), np.uint8)
        decoded = map_in_threads(self._decode, rows.tolist(), "decoding images", "img")
        for position, pixels in enumerate(decoded):
            array[position] = pixels.permute(1, 2, 0)
        return array

    def array_bytes(self, rows: npt.NDArray[np.int64]) -> int:
        """Return the size of some images."""
        return len(rows) * 3 * _SIDE**2

    def _decode(self, index: int) -> Tensor:
        from rsa_pretrain.data.image_sources import read_encoded

        pixels = read_encoded(self, index).pixels()
        if pixels.shape[1:] != (_SIDE, _SIDE):
            raise UserError(
                f"'{self.where(index)}' has {pixels.shape[1]} x {pixels.shape[2]} pixels, Tiny "
                f"ImageNet's images have {_SIDE} x {_SIDE}; use data.name=imagefolder for other "
                "images"
            )
        return pixels


def _open(config: DataConfig, split: AnySplit) -> ImageSet:
    """Open a split from ``root/tiny-imagenet-200/``, or from the root itself.

    Training images are in ``train/CLASS/images/`` or ``train/CLASS/``. Test images are those of
    ``val/``: as distributed in ``val/images/``, their classes in ``val/val_annotations.txt``, or
    in class folders like the training images. (The published ``test/`` has no classes.)
    """
    from rsa_pretrain.data.image_set import ImageSet

    assert config.root is not None
    folder = config.root / _FOLDER
    if not folder.is_dir():
        folder = config.root
    class_names = _classes(folder, config.root)
    below = folder / ("val" if split == "test" else "train")
    if not below.is_dir():
        raise _missing(f"'{below}' is not a folder", config.root)
    if split == "test" and (below / "images").is_dir() and walk(below, ["images"]).names:
        names, classes = _annotated(below, config.root)
    else:
        names, classes = _sorted_by_class(below)
    unknown = sorted(set(classes) - set(class_names))
    if unknown:
        raise UserError(
            f"'{below}' contains classes that train/ lacks: {first_of(unknown)}; remove them, or "
            f"{_again(folder, config.root)}"
        )
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
    if len(names) != NUM_TINY_CLASSES:
        raise UserError(
            f"'{train}' has {len(names)} class folders, Tiny ImageNet has {NUM_TINY_CLASSES}; "
            f"{_again(folder, root)}, or use data.name=imagefolder for another set of classes"
        )
    return names


def _annotated(val: Path, root: Path) -> tuple[list[str], list[str]]:
    annotations = val / "val_annotations.txt"
    if not annotations.is_file():
        raise UserError(
            f"'{val}/images' needs '{annotations}', whose lines are NAME, tab, CLASS, tab, box; "
            f"{_again(val.parent, root)}, or sort the images into '{val}/CLASS/'"
        )
    lines = [line.split("\t") for line in read_text(annotations).splitlines()]
    malformed = [number for number, parts in enumerate(lines, 1) if len(parts) < 2]
    if malformed:
        raise UserError(
            f"line {malformed[0]} of '{annotations}' is not NAME, tab, CLASS, …; "
            f"{_again(val.parent, root)}"
        )
    class_of = {f"images/{name}": class_name for name, class_name, *_ in lines}
    names, left_out = walk(val, ["images"])
    report_left_out(val, left_out)
    differing = sorted(set(names) ^ set(class_of))
    if differing:
        raise UserError(
            f"'{annotations}' and '{val}/images' disagree on {len(differing)} files, the first is "
            f"{differing[0]}; {_again(val.parent, root)}"
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
        f"{found}; {_again(root / _FOLDER, root)}, or let data.root be a folder that contains "
        "train/CLASS/*.JPEG and val/CLASS/*.JPEG"
    )


def _again(folder: Path, root: Path) -> str:
    move = f"move '{folder}' away and " if folder.exists() else ""
    return f"{move}run {download_command('tiny_imagenet', root)}"


def _download(root: Path, url: str | None) -> None:
    fetch(ARCHIVE, root, url)


TINY_IMAGENET = DataSet(
    name="tiny_imagenet",
    label="Tiny ImageNet",
    normalisation=((0.4802, 0.4481, 0.3975), (0.2302, 0.2265, 0.2262)),
    open=_open,
    download=_download,
    counts={
        "train": Counts(100_000, NUM_TINY_CLASSES, 500),
        "test": Counts(10_000, NUM_TINY_CLASSES, 50),
    },
    folders=(_FOLDER, "train"),
)
