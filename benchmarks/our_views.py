"""The views of this project's batched pipeline, from pixels in memory and from JPEG files."""

import numpy as np
import torch
from torch import Tensor

from benchmarks.measure import Device
from rsa_pretrain.augment import VIEW_NAMES
from rsa_pretrain.batch_augment import BatchedViews
from rsa_pretrain.config import ViewsConfig
from rsa_pretrain.data import NORMALISATION
from rsa_pretrain.decode import EncodedImage
from rsa_pretrain.decoded_crops import CropImages, Crops
from rsa_pretrain.method_config import ViewRecipe
from rsa_pretrain.view_draws import draw_views


class OurViews:
    """A recipe's views of whole batches; each image gets the same draws in every call.

    Args:
        recipe: Which views.
        image_size: Side of the views, in pixels; 32 normalises as CIFAR-10, others as ImageNet.
        device: Where the views are made.
        seed: Of the draws.
    """

    def __init__(self, recipe: ViewRecipe, image_size: int, device: Device, seed: int) -> None:
        self.names = VIEW_NAMES[recipe]
        self.config = ViewsConfig()
        self.seed = seed
        self.device = torch.device(device)
        self.crop_images = CropImages(self.names, self.config, image_size, seed)
        statistics = NORMALISATION["cifar10" if image_size == 32 else "imagenet"]
        self.views = BatchedViews(recipe, self.config, image_size, *statistics)

    def of_pixels(self, images: Tensor) -> list[Tensor]:
        """Return the views of images on the device, uint8 (N, 3, H, W)."""
        numbers = np.arange(len(images))
        height, width = (np.full_like(numbers, side) for side in images.shape[2:])
        epochs = np.zeros_like(numbers)
        draws = draw_views(self.names, self.config, self.seed, epochs, numbers, height, width)
        return self.views.from_images(images, draws)

    def crops(self, files: list[bytes]) -> Crops:
        """Decode JPEG files and cut both crops of each: all that a CPU does for a GPU."""
        keys = [(0, number) for number in range(len(files))]
        return self.crop_images(keys, [EncodedImage(file, "a photo", "") for file in files])

    def of_files(self, files: list[bytes]) -> list[Tensor]:
        """Return the views of JPEG files."""
        crops, draws = self.crops(files)
        on_device = {prime: crop.to(self.device) for prime, crop in crops.items()}
        return self.views.from_crops(on_device, draws)
