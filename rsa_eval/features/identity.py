"""Identify features, so that stored ones are used only in place of equal ones."""

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor

from rsa_pretrain.plumbing.config.files import Section

CACHE_FORMAT_VERSION = 2
"""Version of file and image decoding: 1 clipped deep grey levels and ignored EXIF orientation."""


class FeatureIdentity(Section):
    """Everything that determines features, up to rounding by device and batch size."""

    format_version: int
    weights: str
    """SHA-256 of the backbone's tensors, for a user's function also of its code."""
    images: str
    """Fingerprint of the images, in order, with their labels."""
    transform: str
    """Description of the image transform."""
    layers: tuple[str, ...]
    """Stages of a ResNet; name and token settings of another network."""
    precision: str
    feature_dtype: str
    library_versions: dict[str, str]
    """Versions of the libraries that decode, transform and compute."""


def tensors_sha256(tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of tensors: their names, types, shapes and bytes."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
