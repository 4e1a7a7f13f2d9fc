"""Define an export target, and the images that verify one."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from rsa_pretrain.weights.checkpoint import LoadedBackbone


@dataclass(frozen=True)
class ExportTarget:
    """A tool, the file or folder it reads, and its own reader as the proof."""

    name: str
    suffix: str
    """Suffix of the file to write; empty for a folder."""
    stems: tuple[str, ...]
    """Stems its networks can have."""
    write: Callable[[LoadedBackbone, Path], None]
    """Writes the weights and the files that accompany them."""
    packages: tuple[str, ...]
    """Packages that compute its features."""
    features: Callable[[LoadedBackbone, Path, Tensor], Tensor]
    """Loads the written file with the tool and maps images to features."""
    layout: str | None
    """Layout that imports it again; None if there is none."""
    weights: str = ""
    """Name of the weights in a folder."""
    tolerance: float = 1e-5
    """Largest difference of features, relative to the largest feature."""
    advice: str = ""
    """Code that loads it with the tool."""
    loggers: tuple[str, ...] = ()
    """Loggers whose messages about inner steps are silenced."""


def probe_images() -> Tensor:
    """Return two images that differ in every pixel, (2, 3, 64, 64)."""
    return torch.sin(torch.arange(2 * 3 * 64 * 64, dtype=torch.float32)).reshape(2, 3, 64, 64)
