"""Map names of ResNet trunk tensors between torchvision and detectron2 (full names).

    torchvision                      detectron2, under backbone.bottom_up.
    conv1.weight                     stem.conv1.weight
    bn1.weight                       stem.conv1.norm.weight
    layer1.0.conv2.weight            res2.0.conv2.weight
    layer1.0.bn2.running_mean        res2.0.conv2.norm.running_mean
    layer2.0.downsample.0.weight     res3.0.shortcut.weight
    layer2.0.downsample.1.bias       res3.0.shortcut.norm.bias

The table itself is with the other layouts' (``rsa_pretrain.weights.foreign.names``). It
covers basic blocks (ResNet-18, -34) and bottlenecks (-50, -101).
"""

from rsa_pretrain.weights.foreign.names import DETECTRON2

DETECTRON2_PREFIX = "backbone.bottom_up."
BATCH_COUNT = "num_batches_tracked"
"""Last part of the name of a norm's tensor that FrozenBN lacks."""


def to_detectron2(name: str) -> str:
    """Return detectron2's full name of a torchvision ResNet tensor.

    Raises:
        ValueError: If ``name`` is not a tensor of a ResNet without classifier.
    """
    return DETECTRON2_PREFIX + DETECTRON2.from_torchvision(name)


def to_torchvision(name: str) -> str:
    """Return torchvision's name of a detectron2 ResNet trunk tensor; undoes ``to_detectron2``.

    Raises:
        ValueError: If ``name`` is not a tensor under ``backbone.bottom_up.``.
    """
    short = name.removeprefix(DETECTRON2_PREFIX)
    renamed = None if short == name else DETECTRON2.to_torchvision(short)
    if renamed is None:
        raise ValueError(f"'{name}' is not the full name of a tensor in a detectron2 backbone")
    return renamed
