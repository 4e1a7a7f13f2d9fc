"""Reading photographs."""

from pathlib import Path

from PIL import Image, ImageOps

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
