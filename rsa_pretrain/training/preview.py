"""Draw what the networks see: original images beside their weak and aggressive views."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import numpy as np
import torch
from matplotlib import pyplot as plt
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2.functional import pil_to_tensor, to_pil_image

from rsa_pretrain.config import PretrainConfig
from rsa_pretrain.data.image_set import ImageSet
from rsa_pretrain.data.open_images import normalisation
from rsa_pretrain.plumbing.atomic_files import atomic_file
from rsa_pretrain.views.batch import BatchedViews
from rsa_pretrain.views.draws import draw_views
from rsa_pretrain.views.one_image import VIEW_NAMES, Views


def draw_preview(config: PretrainConfig, images: ImageSet, path: Path, num_images: int) -> None:
    """Draw a grid, one row per image: the image, then the views that the run's method sees.

    Args:
        config: The run whose views are drawn; its seed determines images and draws.
        images: Training images.
        path: PNG to write.
        num_images: Rows.
    """
    torch.manual_seed(config.seed)
    view_set, size = config.method.view_set, config.data.image_size
    pillow = Views(view_set, config.views, size, *normalisation(config.data))
    rows = []
    for index in torch.randperm(len(images))[:num_images].tolist():
        image = images[index]
        if config.views.implementation == "batched":
            rows.append([image, *_batched_views(config, image, index)])
        else:
            rows.append([image, *pillow.pixels(image)])
    _save_grid(["image", *(_title(name) for name in VIEW_NAMES[view_set])], rows, path)


def _batched_views(config: PretrainConfig, image: Image.Image, index: int) -> list[Image.Image]:
    """Return the first epoch's views of the image with this number, not normalised."""
    view_set, size = config.method.view_set, config.data.image_size
    numbers = np.array([[0], [index], [image.height], [image.width]], np.int64)
    draws = draw_views(VIEW_NAMES[view_set], config.views, config.seed, *numbers)
    views = BatchedViews(view_set, config.views, size, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    pixels: Tensor = pil_to_tensor(image)
    return [to_pil_image(view[0].clamp(0, 1)) for view in views.from_images(pixels[None], draws)]


def _title(view: str) -> str:
    kind = "aggressive" if view.startswith("v_a") else "weak"
    return f"{kind} ′" if view.endswith("'") else kind


def _save_grid(titles: list[str], rows: list[list[Image.Image]], path: Path) -> None:
    size = (1.5 * len(titles), 1.5 * len(rows) + 0.3)
    figure, axes = plt.subplots(
        len(rows), len(titles), figsize=size, squeeze=False, layout="constrained"
    )
    for row, cells in zip(rows, axes, strict=True):
        for image, cell in zip(row, cells, strict=True):
            cell.imshow(image)
            cell.set_axis_off()
    for title, cell in zip(titles, axes[0], strict=True):
        cell.set_title(title)
    with atomic_file(path) as temporary:
        figure.savefig(temporary, format="png", dpi=150)
    plt.close(figure)
