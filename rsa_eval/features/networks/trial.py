"""Try a network on two images before it is trusted with all of them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from rsa_eval.features.frozen import frozen
from rsa_eval.features.networks.foreign import ForeignNetwork
from rsa_pretrain.plumbing.device import autocast, without_tf32
from rsa_pretrain.plumbing.device_names import Precision
from rsa_pretrain.plumbing.errors import UserError

# Kernels round differently by batch size, at half precision in the third digit; statistics of the
# batch change more.
_TOLERANCE = 1e-2


def try_network(network: ForeignNetwork, image_size: int, precision: Precision) -> None:
    """Take the features of two random images, together and alone; this decides the width.

    Args:
        network: On its device.
        image_size: Side of the images.
        precision: Autocast type.

    Raises:
        UserError: If the network fails, changes, stays in training mode, returns anything but
            finite features (N, D), or the features of an image depend on the others.
    """
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2, 3, image_size, image_size, generator=generator)
    images[1] = 2 * images[1] + 1  # brighter and of more contrast, to show in the other's features
    device = network.place.device
    images = images.to(device, memory_format=torch.channels_last)
    with frozen(network), torch.no_grad(), autocast(precision, device), without_tf32(precision):
        with _largest_map(network) as sizes:
            both = network(images).float()
        alone = network(images[:1]).float()
    network.map_bytes_per_pixel = 4 * max(sizes, default=0) / 2 / image_size**2
    if not both.isfinite().all():
        raise UserError(
            f"{network.name} returned features that are not finite for random images at precision "
            f"{precision}; set precision=fp32, or check its weights and its preprocessing"
        )
    difference = float((both[:1] - alone).abs().max())
    if not difference <= _TOLERANCE * float(both[:1].abs().max()):  # it may be NaN
        raise UserError(
            f"{network.name} gives an image other features alone than beside another image "
            f"(difference {difference:.2g}), so results would depend on batch_size; expected each "
            "image's features to depend on that image alone, and on nothing random"
        )


@contextmanager
def _largest_map(network: nn.Module) -> Iterator[list[int]]:
    """Collect the numbers of elements that its modules return."""
    sizes: list[int] = []

    def note(module: nn.Module, arguments: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            sizes.append(output.numel())

    handles = [
        module.register_forward_hook(note)
        for module in network.modules()
        if not isinstance(module, torch.jit.ScriptModule)  # these take no hooks
    ]
    try:
        yield sizes
    finally:
        for handle in handles:
            handle.remove()
