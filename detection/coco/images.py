"""Reading photographs."""

from pathlib import Path

from PIL import Image

from detection.coco.masks import Size
from rsa_pretrain.data.decode import DECODE_ERRORS, opened, read_rgb, why_broken
from rsa_pretrain.data.read_rules import ReadRules
from rsa_pretrain.plumbing.errors import UserError


def read_image(path: Path, rules: ReadRules) -> Image.Image:
    """Decode an image to RGB, as ``read_with_mode`` does."""
    return read_with_mode(path, rules)[0]


def read_with_mode(path: Path, rules: ReadRules) -> tuple[Image.Image, str]:
    """Decode an image to RGB, and name the mode in which it is stored.

    Annotation tools show a photograph turned as its EXIF orientation says, and detectron2 reads it
    so.

    Args:
        path: The file.
        rules: How it is read.

    Raises:
        UserError: If it cannot be decoded.
    """
    try:
        with path.open("rb") as file, opened(file, f"image '{path}'", rules) as image:
            return read_rgb(image, rules)
    except DECODE_ERRORS as error:
        raise UserError(f"image '{path}' cannot be decoded: {why_broken(error)}") from None


def read_annotated_image(path: Path, size: Size, rules: ReadRules) -> Image.Image:
    """Decode an image as ``read_image`` does, which must have the size annotated.

    Args:
        path: The file.
        size: Height and width that are annotated.
        rules: How it is read.

    Raises:
        UserError: If it cannot be decoded or has another size.
    """
    image = read_image(path, rules)
    if (image.height, image.width) != size:
        raise UserError(
            f"image '{path}' is {image.width}x{image.height}, annotated as {size[1]}x{size[0]}"
        )
    return image
