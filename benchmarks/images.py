"""Provide the benchmarks' images: real ones if RSA_DATA has them, else generated ones."""

import io
import lzma
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from rsa_pretrain.data.image_set import ImageSet
from rsa_pretrain.data.open_images import open_images
from rsa_pretrain.data.settings import DataConfig

CIFAR_BATCHES = "cifar-10-batches-py"

_PHOTOS = "clothing_mini"
_GENERATED_SIDES = (500, 375)  # width and height; the mean size of ImageNet's is about this
_GENERATED_QUALITY = 90
_GRAIN_PIXELS = 8


@dataclass(frozen=True)
class Jpegs:
    """Photos as encoded files."""

    files: list[bytes]
    source: str
    """Their source, for the name of a result."""


def small_images(count: int, seed: int) -> ImageSet:
    """Return images of 32 x 32 pixels in memory, named after their source.

    Args:
        count: Number of images; a class-balanced part of CIFAR-10's training images if available.
        seed: Draws the part, or the pixels.
    """
    published = Path(os.environ.get("RSA_DATA", ""), "cifar10", CIFAR_BATCHES)
    if not published.is_dir():
        pixels = np.random.default_rng(seed).integers(0, 256, (count, 32, 32, 3), np.uint8)
        return ImageSet.from_array("noise", pixels, [0] * count, ["noise"])
    with tempfile.TemporaryDirectory() as name:
        unpack_cifar(published, Path(name, CIFAR_BATCHES))
        config = DataConfig(
            name="cifar10",
            root=Path(name),
            image_size=32,
            num_train_images=count,
            subset_seed=seed,
        )
        part = open_images(config, "train")
    # Drop the rest of CIFAR-10, so that new processes receive only these images.
    pixels = np.stack([np.asarray(part[index]) for index in range(len(part))])
    return ImageSet.from_array("cifar10", pixels, part.require_labels(), part.class_names)


def unpack_cifar(source: Path, folder: Path) -> None:
    """Copy the published batches, decompressing those that end in .xz."""
    folder.mkdir(parents=True)
    for file in source.iterdir():
        content = file.read_bytes()
        content = lzma.decompress(content) if file.suffix == ".xz" else content
        (folder / file.name.removesuffix(".xz")).write_bytes(content)


def jpegs(count: int, seed: int) -> Jpegs:
    """Return JPEG files of about 500 x 375 pixels, repeated if there are too few photos."""
    folder = Path(os.environ.get("RSA_DATA", ""), _PHOTOS, "train")
    photos = sorted(folder.glob("*/*.jpg"))
    generator = np.random.default_rng(seed)
    if photos:
        order = np.resize(generator.permutation(len(photos)), count)
        return Jpegs([photos[index].read_bytes() for index in order], _PHOTOS)
    return Jpegs([_generate_jpeg(generator) for _ in range(count)], "generated JPEGs")


def _generate_jpeg(generator: np.random.Generator) -> bytes:
    """Encode smooth noise, which compresses about as well as photos."""
    width, height = _GENERATED_SIDES
    coarse = (height // _GRAIN_PIXELS, width // _GRAIN_PIXELS, 3)
    pixels: npt.NDArray[np.uint8] = generator.integers(0, 256, coarse, np.uint8)
    buffer = io.BytesIO()
    image = Image.fromarray(pixels).resize(_GENERATED_SIDES, Image.Resampling.BICUBIC)
    image.save(buffer, "JPEG", quality=_GENERATED_QUALITY)
    return buffer.getvalue()
