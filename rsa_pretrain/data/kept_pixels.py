"""Keep the pixels of a whole set in the memory of a device."""

import torch
from torch import Tensor

from rsa_pretrain.data.image_set import ImageSet
from rsa_pretrain.data.image_sources import PixelSources
from rsa_pretrain.plumbing.device import explained_out_of_memory
from rsa_pretrain.plumbing.memory import require_memory


def kept_pixels(images: ImageSet, device: torch.device, advice: str) -> Tensor:
    """Return the pixels of a set, uint8 (N, H, W, 3), on a device.

    Args:
        images: A set of ``PixelSources``.
        device: Where they go; on a CPU, those of a whole ``PixelArray`` are not copied.
        advice: What to do if memory is too small, for errors.

    Raises:
        UserError: If memory is too small, or an image cannot be decoded.
    """
    assert isinstance(images.sources, PixelSources)
    num_bytes = images.sources.array_bytes(images.rows)
    require_memory(num_bytes, f"the pixels of {len(images):,} {images.name} images", advice)
    with explained_out_of_memory(advice):
        return torch.from_numpy(images.array()).to(device)
