"""Choose how many images pass through a backbone at a time."""

import torch
from torch import nn

from rsa_eval.config import EvaluationConfig
from rsa_eval.features.networks.interface import network_of

_ON_CPU = 256
_MOST_ON_GPU = 2048
_LARGEST_MAP_BYTES = 2**30


def batch_size_on(device: torch.device, backbone: nn.Module, config: EvaluationConfig) -> int:
    """Return the configured batch size, or the device's own.

    It follows from the kind of device, the network and the image size alone, so that all processes
    of an evaluation, and every later one, make the same batches.
    """
    if config.batch_size is not None:
        return config.batch_size
    if device.type != "cuda":
        return _ON_CPU
    largest = network_of(backbone).largest_map_bytes(config.data.image_size)
    most = _LARGEST_MAP_BYTES // largest
    return max(1, min(most, _MOST_ON_GPU))
