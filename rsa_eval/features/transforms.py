"""Transform images for evaluation."""

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode, v2

from rsa_pretrain.data.settings import RGB, DataConfig, Interpolation
from rsa_pretrain.views.one_image import to_normalised_tensor


class SquareTransform:
    """Makes normalised squares of RGB images, Pillow resizing and any device normalising.

    Called with an image, it returns both at once: float32 (3, S, S).

    Args:
        size: Side S of the square.
        resize: Resize the short side to this and crop the centre; None resizes the whole image to
            the square.
        interpolation: Interpolation of the resizing.
        mean: Per channel, for pixels in [0, 1].
        std: Per channel.
    """

    def __init__(
        self, size: int, resize: int | None, interpolation: Interpolation, mean: RGB, std: RGB
    ) -> None:
        self.size = size
        self.resize = resize
        mode = InterpolationMode(interpolation)
        if resize is None:
            geometry = [v2.Resize((size, size), mode)]
        else:
            geometry = [v2.Resize(resize, mode), v2.CenterCrop(size)]
        self.geometry = v2.Compose(geometry)
        self.steps = v2.Compose([*geometry, to_normalised_tensor(mean, std)])
        self.mean = torch.tensor(mean)[:, None, None]
        self.std = torch.tensor(std)[:, None, None]

    def __call__(self, image: Image.Image) -> Tensor:
        """Return the normalised square."""
        square: Tensor = self.steps(image)
        return square

    def keeps(self, height: int, width: int) -> bool:
        """Return whether images of this size keep all their pixels as they are."""
        return height == width == self.size and self.resize in (None, self.size)

    def normalised(self, pixels: Tensor) -> Tensor:
        """Normalise squares, uint8 (N, S, S, 3), on their device: float32 (N, 3, S, S).

        The operations are torchvision's in its order, so the values are those of a call.
        """
        self.mean, self.std = self.mean.to(pixels.device), self.std.to(pixels.device)
        scaled = pixels.permute(0, 3, 1, 2).to(torch.float32).mul_(1 / 255)
        return scaled.sub_(self.mean).div_(self.std)


def evaluation_transform(config: DataConfig, mean: RGB, std: RGB) -> SquareTransform:
    """Build the evaluation transform, from an RGB image to float32 (3, S, S).

    With ``eval_resize`` the short side is resized to it and the centre cropped, as is usual for
    ImageNet; without, the whole image is resized to a square, whatever its aspect ratio.
    """
    size, resize = config.image_size, config.eval_resize
    return SquareTransform(size, resize, config.eval_interpolation, mean, std)
