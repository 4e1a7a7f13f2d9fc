"""Reading photographs."""

from pathlib import Path

from PIL import Image, ImageOps

from detection.masks import Size
from rsa_pretrain.errors import UserError


def read_image(path: Path) -> Image.Image:
    """Decode an image to RGB, turned as its EXIF orientation says.

    Annotation tools show a photograph turned, and detectron2 reads it so.

    Raises:
        UserError: If it cannot be decoded.
    """
    try:
        with Image.open(path) as file:
            return ImageOps.exif_transpose(file).convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"image '{path}' cannot be decoded: {error}") from None


def read_annotated_image(path: Path, size: Size) -> Image.Image:
    """Decode an image as ``read_image`` does, which must have the size annotated.

    Raises:
        UserError: If it cannot be decoded or has another size.
    """
    image = read_image(path)
    if (image.height, image.width) != size:
        raise UserError(
            f"image '{path}' is {image.width}x{image.height}, annotated as {size[1]}x{size[0]}"
        )
    return image
