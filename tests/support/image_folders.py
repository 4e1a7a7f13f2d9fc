"""Settings of image folders that tests write."""

from pathlib import Path
from typing import Any


def data_tree(root: Path) -> dict[str, Any]:
    """Settings of an image folder."""
    return {
        "name": "imagefolder",
        "root": str(root),
        "image_size": 32,
        "num_workers": 0,
        "exif_orientation": False,
    }
