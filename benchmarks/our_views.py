"""Make views with this project's batched pipeline, from pixels in memory or JPEG files."""

import torch
from torch import Tensor

from benchmarks.measure import Device
from rsa_pretrain.data.decode import EncodedImage
from rsa_pretrain.data.sets import data_set
from rsa_pretrain.views.batch import BatchedViews
from rsa_pretrain.views.crops import CropImages, Crops
from rsa_pretrain.views.one_image import VIEW_NAMES
from rsa_pretrain.views.settings import ViewsConfig, ViewSet


class OurViews:
    """A set of views of whole batches; each image is augmented alike in every call.

    Args:
        view_set: Views to make.
        image_size: Side of the views, in pixels; 32 normalises as CIFAR-10, others as ImageNet.
        device: Device on which the views are made.
        seed: Seed of the augmentations.
    """

    def __init__(self, view_set: ViewSet, image_size: int, device: Device, seed: int) -> None:
        config = ViewsConfig()
        self.device = torch.device(device)
        self.crop_images = CropImages(VIEW_NAMES[view_set], config, image_size, seed)
        statistics = data_set("cifar10" if image_size == 32 else "imagenet").normalisation
        self.views = BatchedViews(view_set, config, image_size, *statistics)

    def of_pixels(self, images: Tensor) -> list[Tensor]:
        """Return the views of images on the device, uint8 (N, 3, H, W)."""
        numbers = torch.arange(len(images))
        height, width = (torch.full_like(numbers, side) for side in images.shape[2:])
        drawn_for = torch.stack([torch.zeros_like(numbers), numbers, height, width])
        return self.views.from_images(images, self.crop_images.draws(drawn_for))

    def crops(self, files: list[bytes]) -> Crops:
        """Decode JPEG files and take both crops of each: the CPU's share of the work for a GPU."""
        keys = [(0, number) for number in range(len(files))]
        return self.crop_images(keys, [EncodedImage(file, "a photo", "") for file in files])

    def of_files(self, files: list[bytes]) -> list[Tensor]:
        """Return the views of JPEG files."""
        crops = self.crops(files)
        on_device = {prime: crop.to(self.device) for prime, crop in crops.pixels.items()}
        return self.views.from_crops(on_device, self.crop_images.draws(crops.images))
