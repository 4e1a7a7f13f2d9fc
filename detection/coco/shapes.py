"""Draw a small instance-segmentation set of shapes in COCO format from a seed."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as mask_codec

from rsa_pretrain.plumbing.atomic_files import atomic_folder
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.user_paths import real_path

CATEGORIES = ("circle", "rectangle", "triangle")
MIN_IMAGE_SIZE_PIXELS = 32
_MAX_SHAPES = 4
_MIN_RADIUS, _MAX_RADIUS = 0.12, 0.28
_CIRCLE_CORNERS = 40
_PLACING_ATTEMPTS = 20

Polygon = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class ShapesConfig:
    """Size and seed of the set."""

    num_train: int
    num_test: int
    image_size: int
    """Side of the square images, in pixels."""
    seed: int


def write_shapes(folder: Path, config: ShapesConfig) -> None:
    """Write annotations/instances_{train,val}.json and the images in train/ and val/.

    The same settings give the same pixels and annotations. Shapes do not overlap, and a
    shape's pixels are those of its polygon as pycocotools rasterises it.

    Raises:
        UserError: If the folder is not empty or the settings are invalid.
    """
    folder = real_path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"'{folder}' exists and is not an empty folder; choose another")
    if config.image_size < MIN_IMAGE_SIZE_PIXELS:
        raise UserError(f"image size {config.image_size} is below {MIN_IMAGE_SIZE_PIXELS}")
    if min(config.num_train, config.num_test) < 1:
        raise UserError("a set needs at least one training and one test image")
    with atomic_folder(folder) as temporary:
        (temporary / "annotations").mkdir()
        for split, (name, count) in enumerate(
            (("train", config.num_train), ("val", config.num_test))
        ):
            tree = _write_images(temporary / name, count, config, split)
            path = temporary / "annotations" / f"instances_{name}.json"
            path.write_text(json.dumps(tree) + "\n", encoding="utf-8")


def _write_images(folder: Path, count: int, config: ShapesConfig, split: int) -> dict[str, Any]:
    folder.mkdir()
    size = config.image_size
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id in range(1, count + 1):
        random = np.random.default_rng((config.seed % 2**32, split, image_id))
        pixels, shapes = draw_image(size, random)
        name = f"{image_id:06d}.png"
        Image.fromarray(pixels).save(folder / name)
        images.append({"id": image_id, "file_name": name, "height": size, "width": size})
        for category_id, polygon in shapes:
            annotation = {"id": len(annotations) + 1, "image_id": image_id, "iscrowd": 0}
            annotations.append(annotation | _describe(category_id, polygon, size))
    categories = [{"id": index, "name": name} for index, name in enumerate(CATEGORIES, start=1)]
    return {
        "info": {"description": "shapes drawn by rsa-detect toy"},
        "images": images,
        "annotations": annotations,
        "categories": categories,
    }


def draw_image(
    size: int, random: np.random.Generator
) -> tuple[NDArray[np.uint8], list[tuple[int, Polygon]]]:
    """Draw one image.

    Args:
        size: Its side, in pixels.
        random: Source of all randomness.

    Returns:
        RGB pixels, (size, size, 3), and each shape's category id and corners, (N, 2), x first.
    """
    background = random.uniform(0.2, 0.8, 3)
    canvas = background + _texture(size, random)
    free: Mask = np.ones((size, size), dtype=bool)
    shapes: list[tuple[int, Polygon]] = []
    num_wanted = int(random.integers(1, _MAX_SHAPES + 1))
    for _ in range(_PLACING_ATTEMPTS):
        if len(shapes) == num_wanted:
            break
        category_id = int(random.integers(1, len(CATEGORIES) + 1))
        polygon = _random_polygon(CATEGORIES[category_id - 1], size, random)
        mask = rasterise(polygon, size)
        if not (free | ~mask).all():
            continue
        free &= ~mask
        color = (background + random.uniform(0.3, 0.7, 3)) % 1.0
        canvas[mask] = (color + _texture(size, random))[mask]
        shapes.append((category_id, polygon))
    return (255 * canvas.clip(0, 1)).astype(np.uint8), shapes


def rasterise(polygon: Polygon, size: int) -> Mask:
    """Return the pixels of a polygon, (size, size)."""
    codes = mask_codec.frPyObjects([polygon.ravel().tolist()], size, size)
    mask: Mask = mask_codec.decode(codes)[:, :, 0].astype(bool)
    return mask


def _random_polygon(category: str, size: int, random: np.random.Generator) -> Polygon:
    radius = size * random.uniform(_MIN_RADIUS, _MAX_RADIUS)
    turn = random.uniform(0, 2 * np.pi)
    if category == "circle":
        angles = np.arange(_CIRCLE_CORNERS) * 2 * np.pi / _CIRCLE_CORNERS
    elif category == "rectangle":
        half = random.uniform(np.pi / 8, 3 * np.pi / 8)  # angle of a corner to the long axis
        angles = turn + np.array([half, np.pi - half, np.pi + half, -half])
    else:
        angles = turn + np.arange(3) * 2 * np.pi / 3
    centre = random.uniform(radius, size - radius, 2)
    corners = centre + radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    rounded: Polygon = corners.round(2)
    return rounded


def _texture(size: int, random: np.random.Generator) -> NDArray[np.float64]:
    """Return stripes of random direction and pitch with noise, (size, size, 3), around 0."""
    rows, columns = np.mgrid[:size, :size]
    angle, phase = random.uniform(0, np.pi), random.uniform(0, 2 * np.pi)
    pitch_pixels = random.uniform(6, 24)
    position = rows * np.sin(angle) + columns * np.cos(angle)
    stripes: NDArray[np.float64] = 0.06 * np.sin(2 * np.pi * position / pitch_pixels + phase)
    noise: NDArray[np.float64] = random.normal(0, 0.04, (size, size, 3))
    texture: NDArray[np.float64] = stripes[:, :, None] + noise
    return texture


def _describe(category_id: int, polygon: Polygon, size: int) -> dict[str, Any]:
    low, high = polygon.min(axis=0), polygon.max(axis=0)
    return {
        "category_id": category_id,
        "segmentation": [polygon.ravel().tolist()],
        "area": int(rasterise(polygon, size).sum()),
        "bbox": [round(float(value), 2) for value in (*low, *(high - low))],
    }
