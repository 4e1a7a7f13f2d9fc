"""View recipes, one image at a time: a PIL image in, V tensors out, in a documented order."""

import torch
from PIL import Image, ImageFilter
from torch import Tensor
from torchvision.transforms import v2

from rsa_pretrain.config import AggressiveConfig, Range, ViewsConfig, WeakConfig
from rsa_pretrain.data_config import RGB


class MultiStageViews:
    """RSA's multi-stage augmentation, paper Eq. 3: four views for two crops.

    v_w = t_w(x), v_w' = t_w'(x), v_a = t_a(v_w), v_a' = t_a(v_w'): an aggressive view starts
    from the pixels of its weak view, so both show the same crop and flip.

    Calling it on an RGB image returns ``[v_a, v_a', v_w, v_w']``, each a normalised float32
    tensor (3, S, S). All draws come from torch's global generator, in the order t_w, t_a, t_w',
    t_a'.

    Args:
        config: Parameters of t_w and t_a.
        image_size: Side S of the views, in pixels.
        mean: Per-channel mean, pixels in [0, 1].
        std: Per-channel standard deviation, pixels in [0, 1].
    """

    num_views = 4

    def __init__(self, config: ViewsConfig, image_size: int, mean: RGB, std: RGB) -> None:
        self.weak = weak_augmentation(config.weak, image_size)
        self.aggressive = aggressive_augmentation(config.aggressive)
        self.to_tensor = to_normalised_tensor(mean, std)

    def __call__(self, image: Image.Image) -> list[Tensor]:
        """Return ``[v_a, v_a', v_w, v_w']`` of one RGB image."""
        return [self.to_tensor(view) for view in self.pixels(image)]

    def pixels(self, image: Image.Image) -> list[Image.Image]:
        """Return the four views before normalisation, for people to look at."""
        weak = self.weak(image)
        aggressive = self.aggressive(weak)
        weak_prime = self.weak(image)
        aggressive_prime = self.aggressive(weak_prime)
        return [aggressive, aggressive_prime, weak, weak_prime]


def weak_augmentation(config: WeakConfig, image_size: int) -> v2.Transform:
    """Build t_w: random resized crop (bilinear), then horizontal flip."""
    return v2.Compose(
        [
            v2.RandomResizedCrop(image_size, config.crop_scale, config.crop_ratio),
            v2.RandomHorizontalFlip(config.flip_probability),
        ]
    )


def aggressive_augmentation(config: AggressiveConfig) -> v2.Transform:
    """Build t_a: colour jitter (its four operations in random order), grayscale, blur."""
    jitter = v2.ColorJitter(config.brightness, config.contrast, config.saturation, config.hue)
    return v2.Compose(
        [
            v2.RandomApply([jitter], config.jitter_probability),
            v2.RandomGrayscale(config.grayscale_probability),
            v2.RandomApply([GaussianBlur(config.blur_sigma_pixels)], config.blur_probability),
        ]
    )


def to_normalised_tensor(mean: RGB, std: RGB) -> v2.Transform:
    """Build ``(pixel / 255 - mean) / std``, from a PIL image to a float32 tensor (3, H, W)."""
    return v2.Compose(
        [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(list(mean), list(std))]
    )


class GaussianBlur(v2.Transform):  # type: ignore[misc]
    """MoCo v2's blur: Pillow's Gaussian filter with a radius drawn uniformly.

    Args:
        sigma_pixels: Lowest and highest radius, which Pillow takes as standard deviation.
    """

    def __init__(self, sigma_pixels: Range) -> None:
        super().__init__()
        self.sigma_pixels = sigma_pixels

    def forward(self, image: Image.Image) -> Image.Image:
        """Blur an image by one draw."""
        low, high = self.sigma_pixels
        radius = torch.empty(()).uniform_(low, high).item()
        return image.filter(ImageFilter.GaussianBlur(radius))
