"""Load images with their masks in loader processes."""

from collections.abc import Generator, Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms.v2.functional import pil_to_tensor

from rsa_eval.evaluators.segmentation.sets import MaskedSet
from rsa_eval.evaluators.segmentation.settings import SegmentationConfig
from rsa_eval.evaluators.segmentation.squares import (
    draw_mask_view,
    resized_mask,
    resized_pixels,
    view_pair,
)
from rsa_pretrain.data.draws import draws_of
from rsa_pretrain.data.loader import iterate, make_loader


class MaskedBatch(NamedTuple):
    """Images with their masks.

    Attributes:
        pixels: uint8 (n, 3, S, S).
        masks: Classes of each image, uint8 (S, S), or (H, W) of the original.
    """

    pixels: Tensor
    masks: list[Tensor]


class TrainingSamples(Dataset[MaskedBatch]):
    """Freshly augmented squares with their masks, by (epoch, image).

    Args:
        images: Training images.
        config: Side of the squares, augmentation and seed.
    """

    def __init__(self, images: MaskedSet, config: SegmentationConfig) -> None:
        self.images = images
        self.config = config

    def __getitem__(self, key: tuple[int, int]) -> MaskedBatch:
        epoch, index = key
        data = self.config.data
        pixels, mask = read_pair(self.images, index)
        with draws_of(self.config.seed, epoch, index):
            view = draw_mask_view(self.config.probe)
        outside = self.config.masks.class_outside
        pixels, mask = view_pair(pixels, mask, view, data.eval_interpolation, outside)
        size = data.image_size
        square = resized_pixels(pixels, size, data.eval_interpolation)
        return MaskedBatch(square[None], [resized_mask(mask, size, size)])


class TrainingMasks(Dataset[Tensor]):
    """The squares of masks alone, without augmentation, by image: uint8 (S, S).

    Args:
        images: Training images; that masks fit them was checked before.
        size: S.
    """

    def __init__(self, images: MaskedSet, size: int) -> None:
        self.images = images
        self.size = size

    def __getitem__(self, index: int) -> Tensor:
        mask = torch.from_numpy(self.images.mask(index))
        return resized_mask(mask, self.size, self.size)


class TestSamples(Dataset[MaskedBatch]):
    """Squares without augmentation, with the original masks, by image.

    Args:
        images: Test images.
        config: Side of the squares, and interpolation.
    """

    __test__ = False

    def __init__(self, images: MaskedSet, config: SegmentationConfig) -> None:
        self.images = images
        self.config = config

    def __getitem__(self, index: int) -> MaskedBatch:
        data = self.config.data
        pixels, mask = read_pair(self.images, index)
        square = resized_pixels(pixels, data.image_size, data.eval_interpolation)
        return MaskedBatch(square[None], [mask])


def read_pair(images: MaskedSet, index: int) -> tuple[Tensor, Tensor]:
    """Read an image, uint8 (3, H, W), and its mask, uint8 (H, W).

    Raises:
        UserError: If either is damaged, or they do not fit together.
    """
    encoded, mask = images.image(index), images.mask(index)
    pixels: Tensor = pil_to_tensor(encoded.read()[0])
    images.check_fit(index, encoded, mask.shape)
    return pixels, torch.from_numpy(mask)


def load_masked(
    dataset: Dataset[MaskedBatch],
    batches: Iterable[Sequence[object]],
    config: SegmentationConfig,
    device: torch.device,
) -> Generator[MaskedBatch, None, None]:
    """Yield batches; closing the generator ends the loader's processes.

    Raises:
        UserError: If an image or a mask cannot be used.
    """
    keys = (list(batch) for batch in batches)
    return iterate(make_loader(dataset, keys, config.data.num_workers, device, _collate))


def _collate(samples: list[MaskedBatch]) -> MaskedBatch:
    masks = [mask for sample in samples for mask in sample.masks]
    return MaskedBatch(torch.cat([sample.pixels for sample in samples]), masks)
