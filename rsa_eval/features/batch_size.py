"""Choose how many images pass through a backbone at a time."""

import math

import torch
from torch import nn

from rsa_eval.config import EvaluationConfig
from rsa_pretrain.components.backbone import feature_dim

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
    most = _LARGEST_MAP_BYTES // largest_map_bytes(backbone, config.data.image_size)
    return max(1, min(most, _MOST_ON_GPU))


def largest_map_bytes(backbone: nn.Module, image_size: int) -> int:
    """Return the size of a ResNet's largest float32 feature map of one image, in bytes.

    It is the output of the first convolution or of the first stage: from stage to stage the area
    falls by four and the width only doubles.

    Args:
        backbone: As built by ``build_backbone``.
        image_size: Side of the images, in pixels.
    """
    stem = backbone.get_submodule("conv1")
    assert isinstance(stem, nn.Conv2d)
    stem_side = math.ceil(image_size / stem.stride[0])
    pools = not isinstance(backbone.get_submodule("maxpool"), nn.Identity)
    stage_side = math.ceil(stem_side / 2) if pools else stem_side
    values = (
        stem.out_channels * stem_side**2,
        feature_dim(backbone, "layer1") * stage_side**2,
    )
    return 4 * max(values)
