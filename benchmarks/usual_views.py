"""Make views as the paper's release does: torchvision's v1 transforms on single PIL images."""

import random

from PIL import Image, ImageFilter
from torch import Tensor
from torchvision import transforms

from rsa_pretrain.data.settings import RGB


class UsualViews:
    """RSA's four views of one image, paper Eq. 3 with the parameters of its release.

    Written independently of this project's recipes, with constants in place, as the baseline for
    measuring them.

    Args:
        image_size: Side of the views, in pixels.
        mean: Per-channel mean, pixels in [0, 1].
        std: Per-channel standard deviation, pixels in [0, 1].
    """

    def __init__(self, image_size: int, mean: RGB, std: RGB) -> None:
        self.weak = transforms.Compose(
            [
                transforms.RandomResizedCrop(image_size, scale=(0.2, 1.0)),
                transforms.RandomHorizontalFlip(),
            ]
        )
        self.aggressive = transforms.Compose(
            [
                transforms.RandomApply([transforms.ColorJitter(0.4, 0.4, 0.4, 0.1)], p=0.8),
                transforms.RandomGrayscale(p=0.2),
                transforms.RandomApply([PillowBlur(0.1, 2.0)], p=0.5),
            ]
        )
        self.to_tensor = transforms.Compose(
            [transforms.ToTensor(), transforms.Normalize(mean, std)]
        )

    def __call__(self, image: Image.Image) -> list[Tensor]:
        """Return ``[v_a, v_a', v_w, v_w']``, each (3, S, S)."""
        weak = [self.weak(image), self.weak(image)]
        aggressive = [self.aggressive(view) for view in weak]
        return [self.to_tensor(view) for view in (*aggressive, *weak)]


class PillowBlur:
    """MoCo's blur, which names Pillow's radius a sigma.

    Args:
        lowest: Smallest radius, in pixels.
        highest: Largest radius, in pixels.
    """

    def __init__(self, lowest: float, highest: float) -> None:
        self.lowest = lowest
        self.highest = highest

    def __call__(self, image: Image.Image) -> Image.Image:
        """Blur an image with a random radius."""
        return image.filter(ImageFilter.GaussianBlur(random.uniform(self.lowest, self.highest)))
