"""The memory layout in which the convolutions of a network are trained."""

import torch
from torch import nn

# Channels in a block of oneDNN with AVX-512; with AVX2 they are 8.
_BLOCK_CHANNELS = 16


def training_layout(network: nn.Module, device: torch.device) -> torch.memory_format:
    """Return channels last, in which ResNets train faster, or contiguous where that is not safe.

    Channels last on a CPU, oneDNN 3.12 (in torch 2.14) writes past its workspace for the weight
    gradient of a strided 1x1 convolution with fewer input channels than a block
    (uxlfoundation/oneDNN#6035): the gradient is wrong, or the process crashes.

    Args:
        network: Any; of our ResNets, the ResNet-18 and -34 of width 8 have such convolutions.
        device: Where it is trained.
    """
    if device.type == "cpu" and any(map(_overruns_workspace, network.modules())):
        return torch.contiguous_format
    return torch.channels_last


def _overruns_workspace(module: nn.Module) -> bool:
    return (
        isinstance(module, nn.Conv2d)
        and module.kernel_size == (1, 1)
        and max(module.stride) > 1
        and module.in_channels // module.groups < _BLOCK_CHANNELS
    )
