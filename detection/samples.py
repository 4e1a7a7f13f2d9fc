"""Training and test samples, each a function of the seed and its position alone."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from detection.coco import Annotation, CocoSet, TrainingImage, clipped_box
from detection.images import read_annotated_image
from detection.masks import Size, has_mask, polygons, render_mask
from detection.recipe import InputConfig
from rsa_pretrain.errors import UserError
from rsa_pretrain.read_rules import ReadRules

# Keep the draws of one seed apart.
_ORDER_STREAM, _AUGMENTATION_STREAM, _STEP_STREAM, _INITIALISATION_STREAM = range(4)


Polygons = tuple[NDArray[np.float64], ...]
"""Corners of each part of an object, (K, 2), x first, in pixels of the image it is seen in."""

Outline = Polygons | Tensor | None
"""An object annotated by polygons stays so; one annotated by a run-length code is a bitmap of the
image's size, (H, W), uint8; one annotated by a box alone has none."""


@dataclass(frozen=True)
class TrainingSample:
    """One augmented image with its instances."""

    image: Tensor
    """RGB, (3, H, W), uint8."""
    boxes: Tensor
    """x0, y0, x1, y1 in pixels of ``image``, (N, 4)."""
    labels: Tensor
    """From 1, (N,), int64."""
    outlines: tuple[Outline, ...]
    """N."""


@dataclass(frozen=True)
class TestSample:
    """One image at test size."""

    __test__ = False  # not a test class, whatever pytest makes of its name

    image: Tensor
    """RGB, (3, H, W), uint8."""
    image_id: int
    height: int
    """Of the image as annotated, in pixels."""
    width: int


SampleT = TypeVar("SampleT", TrainingSample, TestSample)


@dataclass(frozen=True)
class Broken:
    """Stands for a sample that could not be made.

    A loader process hands it over in place of an exception, which would arrive with a
    traceback pasted into its message.
    """

    message: str


class TrainingStream(Dataset[TrainingSample | Broken]):
    """The endless sequence of training samples; position p is the same in every run.

    Each pass over the images is a permutation drawn from (seed, pass); each augmentation is
    drawn from (seed, position). Workers, batches and resumption change neither.
    """

    def __init__(self, images: Sequence[TrainingImage], settings: InputConfig, seed: int) -> None:
        self._images = images
        self._settings = settings
        self._seed = seed
        # The newest pass's permutation: a whole run of positions is asked for at once.
        self._order: tuple[int, NDArray[np.int64]] = (-1, np.empty(0, np.int64))

    def image_at(self, position: int) -> TrainingImage:
        """Return the image whose turn it is."""
        pass_index, offset = divmod(position, len(self._images))
        if self._order[0] != pass_index:
            random = _generator(self._seed, _ORDER_STREAM, pass_index)
            self._order = (pass_index, random.permutation(len(self._images)))
        return self._images[int(self._order[1][offset])]

    def __getitem__(self, position: int) -> TrainingSample | Broken:
        random = _generator(self._seed, _AUGMENTATION_STREAM, position)
        short_side = int(random.choice(self._settings.train_short_sides_pixels))
        flip = bool(random.random() < self._settings.flip_probability)
        try:
            return make_sample(
                self.image_at(position), short_side, self._settings.max_side_pixels, flip
            )
        except UserError as error:
            return Broken(str(error))


class TestImages(Dataset[TestSample | Broken]):
    """Every image of a set once, by rising id, at test size."""

    __test__ = False  # not a test class, whatever pytest makes of its name

    def __init__(self, coco: CocoSet, settings: InputConfig) -> None:
        self._coco = coco
        self._images = coco.images
        self._settings = settings

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> TestSample | Broken:
        entry = self._images[index]
        size = (int(entry["height"]), int(entry["width"]))
        new_size = resized(
            size, self._settings.test_short_side_pixels, self._settings.max_side_pixels
        )
        try:
            path = self._coco.images_dir / entry["file_name"]
            pixels = _read_image(path, size, new_size, self._coco.rules)
        except UserError as error:
            return Broken(str(error))
        return TestSample(_to_tensor(pixels), int(entry["id"]), *size)


def make_sample(image: TrainingImage, short_side: int, max_side: int, flip: bool) -> TrainingSample:
    """Read, resize and perhaps flip an image, and its boxes and outlines with it.

    Raises:
        UserError: If the image cannot be decoded or has another size than annotated.
    """
    size = (image.height, image.width)
    height, width = new_size = resized(size, short_side, max_side)
    pixels = _read_image(image.path, size, new_size, image.rules)
    boxes = np.array(
        [clipped_box(annotation, image.width, image.height) for annotation in image.annotations]
    )
    boxes *= np.array([width / image.width, height / image.height] * 2)
    if flip:
        pixels = pixels[:, ::-1]
        boxes = np.stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], 1)
    return TrainingSample(
        image=_to_tensor(pixels),
        boxes=torch.from_numpy(boxes.astype(np.float32)),
        labels=torch.tensor(image.labels, dtype=torch.int64),
        outlines=tuple(_outline(entry, size, new_size, flip) for entry in image.annotations),
    )


def resized(size: tuple[int, int], short_side: int, max_side: int) -> tuple[int, int]:
    """Return height and width with the short side as asked, unless the long one gets too long.

    Each side is scaled once for the short side and once more for the limit, in that order: the
    products' rounding decides some sizes by a pixel, and it is to be detectron2's.
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
    """Return torch's seed for building the detector."""
    return _torch_seed(_sequence(seed, _INITIALISATION_STREAM, 0))


def step_seed(seed: int, step: int, process: int) -> int:
    """Return torch's seed for what a process draws in a training step: anchors and regions."""
    return _torch_seed(_sequence(seed, _STEP_STREAM, step, process))


def unbroken(batches: Iterable[list[SampleT | Broken]]) -> Iterator[list[SampleT]]:
    """Pass batches on.

    Raises:
        UserError: At the first sample that could not be made.
    """
    for batch in batches:
        samples: list[SampleT] = []
        for sample in batch:
            if isinstance(sample, Broken):
                raise UserError(sample.message)
            samples.append(sample)
        yield samples


def _sequence(seed: int, stream: int, *indices: int) -> np.random.SeedSequence:
    return np.random.SeedSequence((seed % 2**32, stream, *indices))


def _torch_seed(sequence: np.random.SeedSequence) -> int:
    return int(sequence.generate_state(1, np.uint64)[0]) >> 1


def _generator(seed: int, stream: int, index: int) -> np.random.Generator:
    return np.random.default_rng(_sequence(seed, stream, index))


def _outline(
    annotation: Annotation, size: tuple[int, int], new_size: tuple[int, int], flip: bool
) -> Outline:
    height, width = new_size
    segmentation = annotation.get("segmentation")
    if not has_mask(segmentation):
        return None
    if not isinstance(segmentation, list):
        bitmap = render_mask(segmentation, size, new_size)
        return torch.from_numpy(np.ascontiguousarray(bitmap[:, ::-1] if flip else bitmap))
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
