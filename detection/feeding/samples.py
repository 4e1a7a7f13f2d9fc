"""Build training and test samples, each a function of the seed and its position alone."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from detection.coco.box_forms import box_of
from detection.coco.images import read_annotated_image
from detection.coco.masks import Size, has_mask, polygons, render_mask
from detection.coco.sets import Annotation, CocoSet, TrainingImage
from detection.recipe.recipe import InputConfig
from rsa_pretrain.data.read_settings import ReadRules

# Separate random streams of one seed.
_ORDER_STREAM, _AUGMENTATION_STREAM, _STEP_STREAM, _INITIALISATION_STREAM = range(4)


Polygons = tuple[NDArray[np.float64], ...]
"""Corners of each part of an object, (K, 2), x first, in pixels of the image it is seen in."""


class Bitmap(NamedTuple):
    """The crop of an image's mask around its object, with a border of one pixel."""

    pixels: NDArray[np.uint8]
    """0 and 1, (h, w)."""
    left: int
    """Image column at which the crop starts."""
    top: int
    """Image row, likewise."""


Outline = Polygons | Bitmap | None
"""Polygons stay polygons and a run-length code becomes a bitmap; an object with only a box has
none."""


@dataclass(frozen=True)
class TrainingSample:
    """One augmented image with its instances.

    The image is the only tensor: each tensor passed between processes takes an open file.
    """

    image: Tensor
    """RGB, (3, H, W), uint8."""
    boxes: NDArray[np.float32]
    """x0, y0, x1, y1 in pixels of ``image``, (N, 4)."""
    labels: NDArray[np.int64]
    """From 1, (N,)."""
    outlines: tuple[Outline, ...]
    """One per instance, N."""

    def pin_memory(self) -> "TrainingSample":
        """Return it with its image in page-locked memory, as loaders for a GPU request."""
        return replace(self, image=self.image.pin_memory())


@dataclass(frozen=True)
class TestSample:
    """One image at test size."""

    __test__ = False  # keeps pytest from collecting it

    image: Tensor
    """RGB, (3, H, W), uint8."""
    image_id: int
    height: int
    """Annotated height of the image, in pixels."""
    width: int

    def pin_memory(self) -> "TestSample":
        """Return it with its image in page-locked memory, as loaders for a GPU request."""
        return replace(self, image=self.image.pin_memory())


class ImageOrder:
    """The endless order in which a run sees its images; each pass is shuffled by (seed, pass).

    Args:
        num_images: Length of a pass.
        seed: The run's seed.
    """

    def __init__(self, num_images: int, seed: int) -> None:
        self._num_images = num_images
        self._seed = seed
        # The latest pass's permutation: positions are mostly requested in sequence.
        self._newest: tuple[int, NDArray[np.int64]] = (-1, np.empty(0, np.int64))

    def __getitem__(self, position: int) -> int:
        """Return the index of the image at a position."""
        pass_index, offset = divmod(position, self._num_images)
        if self._newest[0] != pass_index:
            random = np.random.default_rng(_sequence(self._seed, _ORDER_STREAM, pass_index))
            self._newest = (pass_index, random.permutation(self._num_images))
        return int(self._newest[1][offset])


class TrainingStream(Dataset[TrainingSample]):
    """The endless sequence of training samples; position p is the same in every run.

    Each augmentation is drawn from (seed, position). Workers, batch size and resuming change
    neither the augmentations nor the order.
    """

    def __init__(self, images: Sequence[TrainingImage], settings: InputConfig, seed: int) -> None:
        self._images = images
        self._settings = settings
        self._seed = seed
        self._order = ImageOrder(len(images), seed)

    def image_at(self, position: int) -> TrainingImage:
        """Return the image at a position."""
        return self._images[self._order[position]]

    def __getitem__(self, position: int) -> TrainingSample:
        random = np.random.default_rng(augmentation_seed(self._seed, position))
        short_side = int(random.choice(self._settings.train_short_sides_pixels))
        flip = bool(random.random() < self._settings.flip_probability)
        return make_sample(
            self.image_at(position), short_side, self._settings.max_side_pixels, flip
        )


class TestImages(Dataset[TestSample]):
    """Every image of a set once, in order of id, at test size."""

    __test__ = False  # keeps pytest from collecting it

    def __init__(self, coco: CocoSet, settings: InputConfig) -> None:
        self._coco = coco
        self._images = coco.images
        self._settings = settings

    def __len__(self) -> int:
        return len(self._images)

    def input_size(self, index: int) -> Size:
        """Return the height and width at which an image enters the network."""
        entry = self._images[index]
        size = (int(entry["height"]), int(entry["width"]))
        return resized(size, self._settings.test_short_side_pixels, self._settings.max_side_pixels)

    def __getitem__(self, index: int) -> TestSample:
        entry = self._images[index]
        size = (int(entry["height"]), int(entry["width"]))
        path = self._coco.images_dir / entry["file_name"]
        pixels = _read_image(path, size, self.input_size(index), self._coco.rules)
        return TestSample(_to_tensor(pixels), int(entry["id"]), *size)


def make_sample(image: TrainingImage, short_side: int, max_side: int, flip: bool) -> TrainingSample:
    """Read, resize and optionally flip an image together with its boxes and outlines.

    Raises:
        UserError: If the image cannot be decoded or differs in size from its annotation.
    """
    size = (image.height, image.width)
    height, width = new_size = resized(size, short_side, max_side)
    pixels = _read_image(image.path, size, new_size, image.rules)
    boxes = np.array([box_of(annotation, size) for annotation in image.annotations]).reshape(-1, 4)
    boxes *= np.array([width / image.width, height / image.height] * 2)
    if flip:
        pixels = pixels[:, ::-1]
        boxes = np.stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], 1)
    return TrainingSample(
        image=_to_tensor(pixels),
        boxes=boxes.astype(np.float32),
        labels=np.array(image.labels, dtype=np.int64),
        outlines=tuple(_outline(entry, size, new_size, flip) for entry in image.annotations),
    )


def cut_out(bitmap: NDArray[np.uint8]) -> Bitmap:
    """Crop an object from an image's bitmap, (H, W).

    RoIAlign reads the crop as it would the whole: the empty border pixel, where the image has one,
    stands for everything further out.
    """
    rows, columns = (np.flatnonzero(bitmap.any(axis)) for axis in (1, 0))
    if not rows.size:
        return Bitmap(np.zeros((1, 1), np.uint8), 0, 0)
    top, left = max(rows[0] - 1, 0), max(columns[0] - 1, 0)
    pixels = bitmap[top : rows[-1] + 2, left : columns[-1] + 2]
    return Bitmap(np.ascontiguousarray(pixels), int(left), int(top))


def resized(size: tuple[int, int], short_side: int, max_side: int) -> tuple[int, int]:
    """Return height and width scaled to the short side, or less if the long side is too long.

    Each side is scaled once for the short side and once more for the limit, in that order: rounding
    decides some sizes by a pixel, and must match detectron2's.
    """
    scale = short_side / min(size)
    # The short side itself is exact, without the product's rounding.
    sides = [short_side if side == min(size) else scale * side for side in size]
    limit = max_side / max(sides)
    if limit < 1:
        sides = [side * limit for side in sides]
    height, width = (max(1, int(side + 0.5)) for side in sides)
    return height, width


def initialisation_seed(seed: int) -> int:
    """Return the torch seed for building the detector."""
    return _torch_seed(_sequence(seed, _INITIALISATION_STREAM, 0))


def step_seed(seed: int, step: int, process: int) -> int:
    """Return the torch seed of a process's training step, which samples anchors and regions."""
    return _torch_seed(_sequence(seed, _STEP_STREAM, step, process))


def augmentation_seed(seed: int, position: int) -> np.random.SeedSequence:
    """Return the seed sequence of the augmentation at a position."""
    return _sequence(seed, _AUGMENTATION_STREAM, position)


def _sequence(seed: int, stream: int, *indices: int) -> np.random.SeedSequence:
    return np.random.SeedSequence((seed % 2**32, stream, *indices))


def _torch_seed(sequence: np.random.SeedSequence) -> int:
    return int(sequence.generate_state(1, np.uint64)[0]) >> 1


def _outline(
    annotation: Annotation, size: tuple[int, int], new_size: tuple[int, int], flip: bool
) -> Outline:
    height, width = new_size
    segmentation = annotation.get("segmentation")
    if not has_mask(segmentation):
        return None
    if not isinstance(segmentation, list):
        bitmap = render_mask(segmentation, size, new_size)
        return cut_out(bitmap[:, ::-1] if flip else bitmap)
    scale = np.array([width / size[1], height / size[0]])
    parts = [
        np.array(part, dtype=np.float64).reshape(-1, 2) * scale for part in polygons(segmentation)
    ]
    if flip:
        parts = [np.stack([width - part[:, 0], part[:, 1]], axis=1) for part in parts]
    return tuple(parts)


def _read_image(path: Path, size: Size, new_size: Size, rules: ReadRules) -> NDArray[Any]:
    """Return RGB pixels of ``new_size``, resized by PIL with antialiasing, uint8."""
    image = read_annotated_image(path, size, rules)
    return np.asarray(image.resize((new_size[1], new_size[0]), Image.Resampling.BILINEAR))


def _to_tensor(pixels: NDArray[Any]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))
