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

from detection.coco import CocoSet, TrainingImage, clipped_box
from detection.masks import render_mask
from detection.recipe import InputConfig
from rsa_pretrain.errors import UserError

# Keep the draws of one seed apart.
_ORDER_STREAM, _AUGMENTATION_STREAM, _STEP_STREAM, _INITIALISATION_STREAM = range(4)


@dataclass(frozen=True)
class TrainingSample:
    """One augmented image with its instances."""

    image: Tensor
    """RGB in [0, 1], (3, H, W)."""
    boxes: Tensor
    """x0, y0, x1, y1 in pixels of ``image``, (N, 4)."""
    labels: Tensor
    """From 1, (N,), int64."""
    masks: Tensor
    """0 and 1, (N, H, W), uint8."""


@dataclass(frozen=True)
class TestSample:
    """One image at test size."""

    __test__ = False  # not a test class, whatever pytest makes of its name

    image: Tensor
    """RGB in [0, 1], (3, H, W)."""
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

    def image_at(self, position: int) -> TrainingImage:
        """Return the image whose turn it is."""
        pass_index, offset = divmod(position, len(self._images))
        order = _generator(self._seed, _ORDER_STREAM, pass_index).permutation(len(self._images))
        return self._images[int(order[offset])]

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
            pixels = _read_image(self._coco.images_dir / entry["file_name"], size, new_size)
        except UserError as error:
            return Broken(str(error))
        return TestSample(_to_tensor(pixels), int(entry["id"]), *size)


def make_sample(image: TrainingImage, short_side: int, max_side: int, flip: bool) -> TrainingSample:
    """Read, resize and perhaps flip an image, and its boxes and masks with it.

    Raises:
        UserError: If the image cannot be decoded or has another size than annotated.
    """
    size = (image.height, image.width)
    height, width = new_size = resized(size, short_side, max_side)
    pixels = _read_image(image.path, size, new_size)
    boxes = np.array(
        [clipped_box(annotation, image.width, image.height) for annotation in image.annotations]
    )
    boxes *= np.array([width / image.width, height / image.height] * 2)
    masks = np.stack(
        [render_mask(entry["segmentation"], size, new_size) for entry in image.annotations]
    )
    if flip:
        pixels, masks = pixels[:, ::-1], masks[:, :, ::-1]
        boxes = np.stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], 1)
    return TrainingSample(
        image=_to_tensor(pixels),
        boxes=torch.from_numpy(boxes.astype(np.float32)),
        labels=torch.tensor(image.labels, dtype=torch.int64),
        masks=torch.from_numpy(np.ascontiguousarray(masks)),
    )


def resized(size: tuple[int, int], short_side: int, max_side: int) -> tuple[int, int]:
    """Return height and width with the short side as asked, unless the long one gets too long."""
    scale = min(short_side / min(size), max_side / max(size))
    height, width = (max(1, int(side * scale + 0.5)) for side in size)
    return height, width


def initialisation_seed(seed: int) -> int:
    """Return torch's seed for building the detector."""
    return _torch_seed(_sequence(seed, _INITIALISATION_STREAM, 0))


def step_seed(seed: int, step: int) -> int:
    """Return torch's seed for what a training step draws: its anchors and regions."""
    return _torch_seed(_sequence(seed, _STEP_STREAM, step))


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


def _sequence(seed: int, stream: int, index: int) -> np.random.SeedSequence:
    return np.random.SeedSequence((seed % 2**32, stream, index))


def _torch_seed(sequence: np.random.SeedSequence) -> int:
    return int(sequence.generate_state(1, np.uint64)[0]) >> 1


def _generator(seed: int, stream: int, index: int) -> np.random.Generator:
    return np.random.default_rng(_sequence(seed, stream, index))


def _read_image(path: Path, size: tuple[int, int], new_size: tuple[int, int]) -> NDArray[Any]:
    """Return RGB pixels of ``new_size``, resized by PIL with antialiasing, uint8."""
    try:
        with Image.open(path) as file:
            image = file.convert("RGB")
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(f"image '{path}' cannot be decoded: {error}") from None
    if (image.height, image.width) != size:
        raise UserError(
            f"image '{path}' is {image.width}x{image.height}, annotated as {size[1]}x{size[0]}"
        )
    return np.asarray(image.resize((new_size[1], new_size[0]), Image.Resampling.BILINEAR))


def _to_tensor(pixels: NDArray[Any]) -> Tensor:
    channels_first = np.ascontiguousarray(pixels.transpose(2, 0, 1))
    return torch.from_numpy(channels_first).float() / 255
