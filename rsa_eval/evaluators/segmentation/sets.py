"""Open images with masks in the layouts of PASCAL VOC 2012 and of ADE20K's scene parsing."""

import hashlib
import os
from collections import Counter
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from rsa_eval.evaluators.segmentation.masks import MaskValues
from rsa_eval.evaluators.segmentation.settings import MasksConfig
from rsa_pretrain.data.decode import EncodedImage
from rsa_pretrain.data.image_folder import ImageFiles
from rsa_pretrain.data.image_set import ImageSet
from rsa_pretrain.data.orientation import exchanges_sides
from rsa_pretrain.data.settings import DataConfig
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.name_lists import first_of
from rsa_pretrain.plumbing.text_files import read_text
from rsa_pretrain.plumbing.threads import map_in_threads

_REMEDY = "replace it, or leave image and mask out of the split"
_SUFFIXES = (".jpg", ".jpeg", ".png")
_HOW_TO_GET = {
    "voc2012": "data.root should be the folder VOC2012 of VOCdevkit, as "
    "'rsa-detect download voc2012' unpacks VOCtrainval_11-May-2012.tar",
    "ade20k": "data.root should be the folder ADEChallengeData2016, as unpacked from "
    "ADEChallengeData2016.zip (http://sceneparsing.csail.mit.edu/)",
}


@dataclass(frozen=True)
class MaskedSet:
    """Images with a mask each.

    Attributes:
        images: Without labels.
        masks: Files of the masks, in the same order.
        values: Meaning of their values.
        class_names: Names of the classes by index.
    """

    images: ImageSet
    masks: ImageSet
    values: MaskValues
    class_names: list[str]

    def __len__(self) -> int:
        return len(self.images)

    def image(self, index: int) -> EncodedImage:
        """Read the file of an image.

        Raises:
            UserError: If it cannot be read.
        """
        return self.images.encoded(index, _REMEDY)

    def mask(self, index: int) -> npt.NDArray[np.uint8]:
        """Read the mask of an image: class indices, 255 for ignored pixels, uint8 (H, W).

        Raises:
            UserError: If the file is damaged or no mask of these classes.
        """
        return self.values.read(self.masks.encoded(index))

    @cached_property
    def masks_sha256(self) -> str:
        """SHA-256 of the masks' paths and contents, in order."""
        digest = hashlib.sha256(str(len(self)).encode())
        hashes = map_in_threads(self._mask_sha256, range(len(self)), "hashing masks", "img")
        for key, own in zip(self.masks.keys(), hashes, strict=True):
            digest.update(os.fsencode(f"{key} {own}\n"))
        return digest.hexdigest()

    def _mask_sha256(self, index: int) -> str:
        return hashlib.sha256(self.masks.encoded(index).content).hexdigest()

    def check_mask(self, index: int) -> None:
        """Read a mask, and compare it with its image's header.

        Raises:
            UserError: As ``mask`` and ``check_fit``.
        """
        self.check_fit(index, self.image(index), self.mask(index).shape)

    def check_fit(self, index: int, encoded: EncodedImage, mask: tuple[int, ...]) -> None:
        """Refuse a mask that is not of its image's size, or may lie on it the other way round.

        Args:
            index: Number of the image, for the error.
            encoded: The image.
            mask: Height and width of the mask.

        Raises:
            UserError: If the sizes differ, or EXIF turns the image into one of the same size, so
                that the mask may be that of the pixels as stored.
        """
        image = encoded.size()
        if image != tuple(mask):
            raise UserError(
                f"'{self.masks.where(index)}' has {mask[1]} × {mask[0]} pixels, its image "
                f"'{self.images.where(index)}' {image[1]} × {image[0]} (turned by EXIF where "
                "data.exif_orientation says so); each pixel of an image needs a class"
            )
        orientation = encoded.orientation()
        if orientation != 1 and (image[0] == image[1] or not exchanges_sides(orientation)):
            raise UserError(
                f"'{self.images.where(index)}' is turned by EXIF (orientation {orientation}), and "
                f"as large before, so its mask '{self.masks.where(index)}' fits both ways; set "
                "data.exif_orientation=false if masks were drawn on pixels as stored, otherwise "
                "store the image upright, without this tag"
            )


def open_masked(data: DataConfig, config: MasksConfig, part: Literal["train", "test"]) -> MaskedSet:
    """Open one part of a set; that each image has a mask is checked, but nothing is decoded.

    Args:
        data: Folder and number of images, drawn at random.
        config: Layout, splits and classes.
        part: Part to open.

    Raises:
        UserError: If a list, an image or a mask is missing; says what is expected.
    """
    assert data.root is not None
    listed = _list_voc if config.layout == "voc" else _list_ade20k
    images, masks = listed(data.root, config, part)
    found = MaskedSet(
        images=ImageSet(config.name, ImageFiles(data.root, images, data), None, []),
        masks=ImageSet(config.name, ImageFiles(data.root, masks, data), None, []),
        values=MaskValues(len(config.class_names), has_unlabelled=config.layout == "ade20k"),
        class_names=config.class_names,
    )
    count = data.num_train_images if part == "train" else data.num_test_images
    if count is None:
        return found
    if count > len(found):
        raise UserError(f"asked for {count} images of {config.name}, which has {len(found)}")
    seed = data.subset_seed
    return replace(
        found,
        images=found.images.random_subset(count, seed),
        masks=found.masks.random_subset(count, seed),
    )


def open_masked_splits(data: DataConfig, config: MasksConfig) -> tuple[MaskedSet, MaskedSet]:
    """Open the training and the test images.

    Raises:
        UserError: As ``open_masked``, or if an image is in both.
    """
    train, test = open_masked(data, config, "train"), open_masked(data, config, "test")
    both = sorted(set(train.images.keys()) & set(test.images.keys()))
    if both:
        raise UserError(
            f"{len(both)} images of {config.name} are in the splits '{config.split('train')}' and "
            f"'{config.split('test')}': {first_of(both)}; a test image may not be trained on"
        )
    return train, test


def _list_voc(
    root: Path, config: MasksConfig, part: Literal["train", "test"]
) -> tuple[list[str], list[str]]:
    """Return the paths of the images and of the masks below the root."""
    path = root / "ImageSets" / "Segmentation" / f"{config.split(part)}.txt"
    if not path.is_file():
        raise UserError(f"there is no '{path}'; {_how_to_get(config, part)}")
    ids = [line.strip() for line in read_text(path).splitlines() if line.strip()]
    if not ids:
        raise UserError(f"'{path}' lists no images; expected one id a line")
    odd = [name for name in ids if "/" in name or len(name.split()) != 1]
    if odd:
        raise UserError(
            f"'{path}' has the line '{odd[0]}'; expected an id alone, such as 2007_000032"
        )
    twice = [name for name, count in Counter(ids).items() if count > 1]
    if twice:
        raise UserError(f"'{path}' lists {len(twice)} images twice: {first_of(twice)}")
    mask_dir = config.train_mask_dir if part == "train" else "SegmentationClass"
    images = [f"JPEGImages/{name}.jpg" for name in ids]
    masks = [f"{mask_dir}/{name}.png" for name in ids]
    for names in (images, masks):
        _check_present(root, names, path, _how_to_get(config, part))
    return images, masks


def _how_to_get(config: MasksConfig, part: Literal["train", "test"]) -> str:
    """Say where a published set comes from, and for SBD's list what to do without."""
    published = _HOW_TO_GET.get(config.name)
    if published is None:
        return (
            f"check data.root and masks.{part}_split, and that the files are in "
            f"masks.layout={config.layout}"
        )
    if config.layout != "voc" or part == "test" or config.train_split in (None, "train"):
        return published
    return (
        f"{published}; the list '{config.split(part)}' and the masks in "
        f"'{config.train_mask_dir}' are not part of it (SBD's come from their own publishers): "
        "without them set masks.train_split=train masks.train_mask_dir=SegmentationClass"
    )


def _list_ade20k(
    root: Path, config: MasksConfig, part: Literal["train", "test"]
) -> tuple[list[str], list[str]]:
    split = config.split(part)
    found = [_files_in(root / kind / split) for kind in ("images", "annotations")]
    for kind, names in zip(("images", "annotations"), found, strict=True):
        if not names:
            raise UserError(f"no files in '{root / kind / split}'; {_how_to_get(config, part)}")
    images, masks = found
    odd = [name for name in images + masks if not name.lower().endswith(_SUFFIXES)]
    if odd:
        raise UserError(
            f"'{root}' has '{odd[0]}' among the files of the split '{split}'; expected "
            f"{', '.join(_SUFFIXES)}"
        )
    bare = [os.path.splitext(name)[0] for name in images]
    by_name = {os.path.splitext(name)[0]: name for name in masks}
    if len(set(bare)) < len(bare) or len(by_name) < len(masks):
        raise UserError(f"two files of the split '{split}' in '{root}' differ in their ends only")
    missing = [f"{name}.png" for name in bare if name not in by_name]
    extra = sorted(set(by_name) - set(bare))
    if missing or extra:
        what = (
            f"{len(missing)} of {len(bare)} images have no mask in "
            f"'{root / 'annotations' / split}': {first_of(missing)}"
            if missing
            else f"{len(extra)} masks have no image in '{root / 'images' / split}': "
            f"{first_of([by_name[name] for name in extra])}"
        )
        raise UserError(f"{what}; expected one mask of an image's name for each image")
    return (
        [f"images/{split}/{name}" for name in images],
        [f"annotations/{split}/{by_name[name]}" for name in bare],
    )


def _check_present(root: Path, names: list[str], listed_in: Path, how_to_get: str) -> None:
    folder = root / os.path.dirname(names[0])
    present = set(_files_in(folder))
    missing = [name for name in names if os.path.basename(name) not in present]
    if missing:
        raise UserError(
            f"{len(missing)} of {len(names)} files that '{listed_in}' asks for are not in "
            f"'{folder}': {first_of(missing)}; {how_to_get}"
        )


def _files_in(folder: Path) -> list[str]:
    """Return the names of a folder's files, without hidden ones; empty if there is no folder."""
    try:
        with os.scandir(folder) as entries:
            return sorted(
                entry.name for entry in entries if entry.is_file() and entry.name[0] != "."
            )
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise UserError(f"cannot list '{folder}': {error.strerror}") from None
