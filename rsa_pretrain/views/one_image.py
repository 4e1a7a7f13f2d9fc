"""Make views one image at a time: a PIL image in, V tensors out, in a documented order."""

import torch
from PIL import Image, ImageFilter
from torch import Tensor
from torchvision.transforms import InterpolationMode, v2

from rsa_pretrain.data.settings import RGB, Interpolation
from rsa_pretrain.views.settings import AggressiveConfig, Range, ViewsConfig, ViewSet, WeakConfig

# The views of each set in the order a method receives them; a prime marks the second crop.
VIEW_NAMES: dict[ViewSet, tuple[str, ...]] = {
    "multi_stage": ("v_a", "v_a'", "v_w", "v_w'"),
    "aggressive_pair": ("v_a", "v_a'"),
    "aggressive_weak": ("v_a", "v_w'"),
    "weak": ("v_w",),
}


class Views:
    """RSA's multi-stage augmentation, paper Eq. 3, restricted to a set of views.

    v_w = t_w(x), v_w' = t_w'(x), v_a = t_a(v_w), v_a' = t_a'(v_w'): an aggressive view starts
    from the pixels of its weak view, so both show the same crop and flip.

    Calling it on an RGB image returns the set's views, each a normalised float32 tensor
    (3, S, S). All draws come from torch's global generator, in the order t_w, t_a, t_w', t_a',
    skipping those that the set does not need.

    Args:
        view_set: Which views to return, and in which order.
        config: Parameters of t_w and t_a.
        image_size: Side S of the views, in pixels.
        mean: Per-channel mean, pixels in [0, 1].
        std: Per-channel standard deviation, pixels in [0, 1].
    """

    def __init__(
        self, view_set: ViewSet, config: ViewsConfig, image_size: int, mean: RGB, std: RGB
    ) -> None:
        self.names = VIEW_NAMES[view_set]
        self.weak = weak_augmentation(config.weak, image_size)
        self.aggressive = aggressive_augmentation(config.aggressive)
        self.to_tensor = to_normalised_tensor(mean, std)

    def __call__(self, image: Image.Image) -> list[Tensor]:
        """Return the views of one RGB image."""
        return [self.to_tensor(view) for view in self.pixels(image)]

    def pixels(self, image: Image.Image) -> list[Image.Image]:
        """Return the views before normalisation, for display."""
        drawn = {}
        for prime in ("", "'"):
            weak, aggressive = f"v_w{prime}", f"v_a{prime}"
            if weak in self.names or aggressive in self.names:
                drawn[weak] = self.weak(image)
            if aggressive in self.names:
                drawn[aggressive] = self.aggressive(drawn[weak])
        return [drawn[name] for name in self.names]


def weak_augmentation(
    config: WeakConfig, image_size: int, interpolation: Interpolation = "bilinear"
) -> v2.Transform:
    """Build t_w: random resized crop, then horizontal flip."""
    mode = InterpolationMode(interpolation)
    return v2.Compose(
        [
            v2.RandomResizedCrop(image_size, config.crop_scale, config.crop_ratio, mode),
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
        """Blur an image with a randomly drawn radius."""
        low, high = self.sigma_pixels
        radius = torch.empty(()).uniform_(low, high).item()
        return image.filter(ImageFilter.GaussianBlur(radius))
