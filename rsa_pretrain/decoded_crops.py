"""Image files decoded and cropped in loader processes: what a device needs to make the views."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms.v2.functional import resized_crop

from rsa_pretrain.config import ViewsConfig
from rsa_pretrain.decode import EncodedImage
from rsa_pretrain.image_set import ImageSet
from rsa_pretrain.view_draws import CropDraws, ViewDraws, draw_views


class Crops(NamedTuple):
    """The crops of a batch of images.

    Attributes:
        pixels: By prime, those of the weak view before its flip, uint8 (N, 3, S, S).
        draws: Parameters of the views.
    """

    pixels: dict[str, Tensor]
    draws: ViewDraws


class CropImages:
    """A ``shards.MakeBatch``: draws the views of a batch, decodes each image and cuts its crops.

    Args:
        names: The recipe's views.
        config: Parameters of the augmentations.
        image_size: Side S of the views, in pixels.
        seed: Seed of the draws.
    """

    def __init__(
        self, names: tuple[str, ...], config: ViewsConfig, image_size: int, seed: int
    ) -> None:
        self.names = names
        self.config = config
        self.image_size = image_size
        self.seed = seed

    def __call__(self, keys: Sequence[tuple[int, int]], images: Sequence[EncodedImage]) -> Crops:
        """Make a batch; the images are decoded one after the other, not held together."""
        epochs, numbers = np.array(keys, np.int64).T
        heights, widths = np.array([image.size() for image in images], np.int64).T
        draws = draw_views(self.names, self.config, self.seed, epochs, numbers, heights, widths)
        boxes = {prime: _boxes(crop) for prime, crop in draws.crops.items()}
        side = self.image_size
        crops = {
            prime: torch.empty((len(images), 3, side, side), dtype=torch.uint8) for prime in boxes
        }
        for row, image in enumerate(images):
            pixels = image.pixels()
            for prime, box in boxes.items():
                crops[prime][row] = resized_crop(pixels, *box[row], [side, side], antialias=True)
        return Crops(crops, draws)


class CroppedFiles(Dataset[Any]):
    """The crops and labels of whole batches of image files.

    Args:
        images: A set of files.
        make_batch: Makes the crops.
    """

    def __init__(self, images: ImageSet, make_batch: CropImages) -> None:
        self.images = images
        self.make_batch = make_batch

    def __getitem__(self, keys: list[tuple[int, int]]) -> tuple[Crops, Tensor]:
        numbers = [number for _, number in keys]
        encoded = [self.images.encoded(number) for number in numbers]
        return self.make_batch(keys, encoded), self.images.labels_of(numbers)


def _boxes(crop: CropDraws) -> list[list[int]]:
    """Return top, left, height and width of each image's crop."""
    boxes: list[list[int]] = torch.stack(
        [crop.top, crop.left, crop.height, crop.width], dim=1
    ).tolist()
    return boxes
