"""Decode and crop image files in loader processes, for a device to make the views from."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms.v2.functional import resized_crop

from rsa_pretrain.data.decode import EncodedImage
from rsa_pretrain.data.image_set import ImageSet
from rsa_pretrain.views.draws import CropDraws, ViewDraws, draw_views
from rsa_pretrain.views.settings import ViewsConfig


class Crops(NamedTuple):
    """The crops of a batch of images.

    Attributes:
        pixels: Crops of the weak views before their flip, by prime, uint8 (N, 3, S, S).
        images: Epoch, number in the set, height and width of each, int64 (4, N). They determine
            the views' parameters, which as two dozen tensors would cost more to send.
    """

    pixels: dict[str, Tensor]
    images: Tensor


class CropImages:
    """A ``stream.MakeBatch``: draws the views of a batch, decodes and crops each image.

    Args:
        names: The views of a set.
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
        """Make a batch; images are decoded one at a time, never kept in memory together."""
        sizes = [image.size() for image in images]
        drawn_for = torch.cat([torch.tensor(keys), torch.tensor(sizes)], dim=1).T
        crops = self.draws(drawn_for).crops
        boxes = {prime: _boxes(crop) for prime, crop in crops.items()}
        side = self.image_size
        pixels = {
            prime: torch.empty((len(images), 3, side, side), dtype=torch.uint8) for prime in boxes
        }
        for row, image in enumerate(images):
            decoded = image.pixels()
            for prime, box in boxes.items():
                pixels[prime][row] = resized_crop(decoded, *box[row], [side, side], antialias=True)
        return Crops(pixels, drawn_for)

    def draws(self, images: Tensor) -> ViewDraws:
        """Draw the views of images, given epochs, numbers, heights and widths, int64 (4, N)."""
        return draw_views(self.names, self.config, self.seed, *images.numpy())


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
