"""Transform images for evaluation."""

from torchvision.transforms import InterpolationMode, v2

from rsa_pretrain.data.settings import RGB, DataConfig, Interpolation
from rsa_pretrain.views.one_image import to_normalised_tensor


def evaluation_transform(config: DataConfig, mean: RGB, std: RGB) -> v2.Transform:
    """Build the evaluation transform, from an RGB image to float32 (3, S, S).

    With ``eval_resize`` the short side is resized to it and the centre cropped, as is usual for
    ImageNet; without, the whole image is resized to a square, whatever its aspect ratio.
    """
    size, resize = config.image_size, config.eval_resize
    return square_transform(size, resize, config.eval_interpolation, mean, std)


def square_transform(
    size: int, resize: int | None, interpolation: Interpolation, mean: RGB, std: RGB
) -> v2.Transform:
    """Build the transform from an RGB image to a normalised float32 tensor (3, size, size).

    Args:
        size: Side of the square.
        resize: Resize the short side to this and crop the centre; None resizes the whole image to
            the square.
        interpolation: Interpolation of the resizing.
        mean: Per channel, for pixels in [0, 1].
        std: Per channel.
    """
    mode = InterpolationMode(interpolation)
    if resize is None:
        geometry = [v2.Resize((size, size), mode)]
    else:
        geometry = [v2.Resize(resize, mode), v2.CenterCrop(size)]
    to_square: v2.Transform = v2.Compose([*geometry, to_normalised_tensor(mean, std)])
    return to_square
