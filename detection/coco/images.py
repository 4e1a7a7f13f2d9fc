"""Read images as RGB."""

from pathlib import Path

from PIL import Image

from detection.coco.masks import Size
from rsa_pretrain.data.decode import DECODE_ERRORS, opened, read_rgb, why_broken
from rsa_pretrain.data.read_settings import ReadRules
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.regular_files import open_regular


def read_image(path: Path, rules: ReadRules) -> Image.Image:
    """Decode an image to RGB, as ``read_with_mode`` does."""
    return read_with_mode(path, rules)[0]


def read_with_mode(path: Path, rules: ReadRules) -> tuple[Image.Image, str]:
    """Decode an image to RGB, and name the mode in which it is stored.

    The EXIF orientation is applied, as annotation tools and detectron2 do.

    Args:
        path: The file.
        rules: How to read it.

    Raises:
        UserError: If it cannot be decoded.
    """
    try:
        with open_regular(path) as file, opened(file, f"image '{path}'", rules) as image:
            return read_rgb(image, rules)
    except DECODE_ERRORS as error:
        raise UserError(f"image '{path}' cannot be decoded: {why_broken(error)}") from None


def read_annotated_image(path: Path, size: Size, rules: ReadRules) -> Image.Image:
    """Decode an image as ``read_image`` does, and check that it has the annotated size.

    Args:
        path: The file.
        size: Annotated height and width.
        rules: How to read it.

    Raises:
        UserError: If it cannot be decoded or has another size.
    """
    image = read_image(path, rules)
    if (image.height, image.width) != size:
        raise UserError(
            f"image '{path}' is {image.width}x{image.height}, annotated as {size[1]}x{size[0]}"
        )
    return image
