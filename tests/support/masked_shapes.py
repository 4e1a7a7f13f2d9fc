"""Coloured squares on noise with their masks, in VOC2012's or ADE20K's layout."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

CLASSES = ("background", "red", "green", "blue")
NUM_TRAIN, NUM_TEST = 24, 12


def write_shapes(
    root: Path,
    layout: Literal["voc", "ade20k"] = "voc",
    *,
    scrambled: bool = False,
) -> Path:
    """Write 24 training and 12 test images of 40 to 64 pixels, and return the root.

    Each has a red, a green and a blue square, two of them or one, and one row of ignored pixels.

    Args:
        root: Folder to write to.
        layout: Layout of the files.
        scrambled: Give each image the mask of another image, resized: nothing can be learned but
            where squares are on average.
    """
    rng = np.random.default_rng(3)
    pairs = [_draw(rng) for _ in range(NUM_TRAIN + NUM_TEST)]
    if scrambled:
        others = [mask for _, mask in pairs[1:] + pairs[:1]]
        pairs = [
            (pixels, np.resize(other, pixels.shape[:2]))
            for (pixels, _), other in zip(pairs, others, strict=True)
        ]
    parts = {"train": range(NUM_TRAIN), "val": range(NUM_TRAIN, NUM_TRAIN + NUM_TEST)}
    for part, numbers in parts.items():
        for number in numbers:
            pixels, mask = pairs[number]
            write_pair(root, layout, part, f"shape_{number:02}", pixels, mask)
        if layout == "voc":
            write_list(root, part, [f"shape_{number:02}" for number in numbers])
    return root


def write_list(root: Path, part: str, ids: Sequence[str]) -> None:
    """Write a list of VOC's layout."""
    path = root / "ImageSets" / "Segmentation" / f"{part}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{name}\n" for name in ids))


def write_pair(
    root: Path,
    layout: str,
    part: str,
    name: str,
    pixels: npt.NDArray[np.uint8],
    mask: npt.NDArray[np.uint8],
) -> None:
    """Write an image and its mask, whose classes are from 0 and 255 is ignored."""
    if layout == "voc":
        image_path = root / "JPEGImages" / f"{name}.jpg"
        mask_path = root / "SegmentationClass" / f"{name}.png"
        stored = Image.fromarray(mask)
        stored.putpalette(list(np.random.default_rng(0).permutation(768) % 256))
    else:
        split = {"train": "training", "val": "validation"}[part]
        image_path = root / "images" / split / f"{name}.jpg"
        mask_path = root / "annotations" / split / f"{name}.png"
        stored = Image.fromarray(mask + np.uint8(1))  # 255 becomes 0
    for path in (image_path, mask_path):
        path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(image_path, quality=95)
    stored.save(mask_path)


def _draw(rng: np.random.Generator) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    height, width = rng.integers(40, 65, size=2)
    pixels = rng.integers(90, 160, size=(height, width, 3)).astype(np.uint8)
    mask = np.zeros((height, width), np.uint8)
    for _ in range(2):
        label, side = rng.integers(1, 4), rng.integers(14, 28)
        top, left = rng.integers(0, height - 14), rng.integers(0, width - 14)
        place = (slice(top, top + side), slice(left, left + side))
        mask[place] = label
        colour = np.eye(3)[label - 1] * 200 + 20
        pixels[place] = (colour + rng.integers(-15, 16, size=pixels[place].shape)).astype(np.uint8)
    mask[height // 2] = 255
    return pixels, mask
