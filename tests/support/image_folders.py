"""Image folders that tests write, and their settings."""

from pathlib import Path
from typing import Any

from PIL import Image


def data_tree(root: Path) -> dict[str, Any]:
    """Settings of an image folder."""
    return {
        "name": "imagefolder",
        "root": str(root),
        "image_size": 32,
        "num_workers": 0,
        "exif_orientation": False,
    }


def write_pictures(root: Path, split: str, pictures: dict[str, Image.Image]) -> Path:
    """Write pictures as ROOT/SPLIT/CLASS/NAME.png; returns the root."""
    for name, picture in pictures.items():
        path = root / split / name
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(path)
    return root
