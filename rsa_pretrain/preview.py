"""A picture of what the networks see: originals beside their weak and aggressive views."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import torch
from matplotlib import pyplot as plt
from PIL import Image

from rsa_pretrain.atomic_files import atomic_file
from rsa_pretrain.augment import Views
from rsa_pretrain.config import PretrainConfig
from rsa_pretrain.data import normalisation
from rsa_pretrain.image_set import ImageSet


def draw_preview(config: PretrainConfig, images: ImageSet, path: Path, num_images: int) -> None:
    """Draw a grid, one row per image: the image, then the views that the run's method sees.

    Args:
        config: The run whose views are drawn; its seed decides images and draws.
        images: Training images.
        path: PNG to write.
        num_images: Rows.
    """
    torch.manual_seed(config.seed)
    size, statistics = config.data.image_size, normalisation(config.data)
    views = Views(config.method.view_recipe, config.views, size, *statistics)
    rows = []
    for index in torch.randperm(len(images))[:num_images].tolist():
        image = images[index]
        rows.append([image, *views.pixels(image)])
    _save_grid(["image", *(_title(name) for name in views.names)], rows, path)


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
