"""Read STL-10's published binary files image by image.

Files under ``root/stl10_binary/``, 96 px, three planes of bytes per image, each in column order;
labels are bytes from 1 to 10. Pretraining reads ``train+unlabeled``, 105,000 images, of which the
first 5,000 have a class.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from rsa_pretrain.data.sets.base import AnySplit, Counts, DataSet, download_command
from rsa_pretrain.data.sets.numbered_images import NumberedImages
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.fetch import Archive, fetch
from rsa_pretrain.plumbing.text_files import read_text

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from PIL import Image

    from rsa_pretrain.data.image_set import ImageSet
    from rsa_pretrain.data.settings import DataConfig

NUM_IMAGES = {"train": 5_000, "test": 8_000, "unlabeled": 100_000}
NUM_FOLDS = 10

_FOLDER = "stl10_binary"
_SIDE = 96
_INDEX = re.compile("[0-9]{1,4}")
_PLANES = (3, _SIDE, _SIDE)
_IMAGE_BYTES = 3 * _SIDE * _SIDE
_CLASSES = [
    *("airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck"),
]


class BinaryImages(NumberedImages):
    """The images of some binary files; only file names are kept in memory."""

    def read(self, index: int) -> tuple[Image.Image, str]:
        """Read one image."""
        import numpy as np
        from PIL import Image

        part, number = self.locate(index)
        pixels = np.fromfile(self.paths[part], np.uint8, _IMAGE_BYTES, offset=number * _IMAGE_BYTES)
        return Image.fromarray(pixels.reshape(_PLANES).transpose(2, 1, 0).copy()), "RGB"

    def array(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        """Read some images: 28 kB each, 2.9 GB for train and unlabeled."""
        import numpy as np

        files = {
            part: np.memmap(self.paths[part], np.uint8, "r").reshape(-1, *_PLANES)
            for part in self.sizes
        }
        planes = np.empty((len(rows), *_PLANES), np.uint8)
        for position, row in enumerate(rows.tolist()):
            part, number = self.locate(row)
            planes[position] = files[part][number]
        return planes.transpose(0, 3, 2, 1)

    def array_bytes(self, rows: npt.NDArray[np.int64]) -> int:
        """Return the size of some images."""
        return len(rows) * _IMAGE_BYTES


def _open(config: DataConfig, split: AnySplit) -> ImageSet:
    """Open a split; ``pretrain`` is train and unlabeled, ``train`` may be one of the folds."""
    import numpy as np

    from rsa_pretrain.data.image_set import UNLABELLED, ImageSet

    assert config.root is not None
    folder = config.root / _FOLDER
    parts: list[str] = ["train", "unlabeled"] if split == "pretrain" else [split]
    paths = {part: folder / f"{part}_X.bin" for part in parts}
    sizes = {part: NUM_IMAGES[part] for part in parts}
    for part, path in paths.items():
        _check_size(path, sizes[part] * _IMAGE_BYTES)
    labels = _labels(folder, parts[0])
    if "unlabeled" in parts:
        labels += [UNLABELLED] * NUM_IMAGES["unlabeled"]
    rows = None
    if split == "train" and config.stl10_fold is not None:
        rows = np.array(read_folds(config.root)[config.stl10_fold])
        labels = [labels[row] for row in rows]
    return ImageSet("stl10", BinaryImages(paths, sizes), labels, _CLASSES, rows)


def read_folds(root: Path) -> list[list[int]]:
    """Read the ten predefined folds of the published protocol: 1,000 training images each.

    Args:
        root: ``data.root``.

    Returns:
        Indices into the training split.

    Raises:
        UserError: If the file is missing or not as published.
    """
    path = root / _FOLDER / "fold_indices.txt"
    if not path.is_file():
        raise UserError(f"no '{path}'; {_again(root)}")
    text = read_text(path)
    folds = [line.split() for line in text.splitlines() if line.strip()]
    words = [word for line in folds for word in line]
    if len(folds) != NUM_FOLDS or not all(map(_INDEX.fullmatch, words)):
        raise UserError(f"'{path}' should contain {NUM_FOLDS} lines of indices; {_again(root)}")
    indices = [[int(word) for word in line] for line in folds]
    highest = max(index for fold in indices for index in fold)
    if highest >= NUM_IMAGES["train"]:
        raise UserError(f"'{path}' names image {highest} of {NUM_IMAGES['train']}; {_again(root)}")
    return indices


def _labels(folder: Path, part: str) -> list[int]:
    path = folder / f"{part}_y.bin"
    _check_size(path, NUM_IMAGES[part])
    labels = [byte - 1 for byte in path.read_bytes()]
    if min(labels) < 0 or max(labels) >= len(_CLASSES):
        raise UserError(
            f"'{path}' contains labels outside 1 … {len(_CLASSES)}; {_again(path.parents[1])}"
        )
    return labels


def _check_size(path: Path, expected: int) -> None:
    if not path.is_file():
        raise UserError(f"no '{path}'; {_again(path.parents[1])}")
    found = path.stat().st_size
    if found != expected:
        raise UserError(
            f"'{path}' has {found} bytes, expected {expected}; {_again(path.parents[1])}"
        )


def _again(root: Path) -> str:
    folder = root / _FOLDER
    move = f"move '{folder}' away and " if folder.exists() else ""
    return f"{move}run {download_command('stl10', root)}"


def _download(root: Path, url: str | None) -> None:
    from torchvision.datasets import STL10 as facts

    fetch(Archive(facts.url, facts.tgz_md5, _FOLDER), root, url)


STL10 = DataSet(
    name="stl10",
    label="STL-10",
    normalisation=((0.4408, 0.4279, 0.3867), (0.2682, 0.2610, 0.2686)),
    open=_open,
    download=_download,
    counts={
        "pretrain": Counts(105_000, 10, 500),
        "train": Counts(5_000, 10, 500),
        "test": Counts(8_000, 10, 800),
    },
    folders=(_FOLDER,),
    settings=("stl10_fold",),
    is_pixels=True,
)
