"""A small network in place of ResNet-18: tests of what surrounds a network train it in a moment."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torchvision
from torchvision.models.resnet import BasicBlock, ResNet

_RESNET18 = torchvision.models.resnet18


class NarrowResNet(ResNet):
    """ResNet-18 with one block a stage and a sixteenth of its width there."""

    def __init__(self, *, weights, zero_init_residual):
        assert weights is None
        super().__init__(BasicBlock, [1, 1, 1, 1], zero_init_residual=zero_init_residual)

    def _make_layer(self, block, planes, blocks, stride=1, dilate=False):
        return super()._make_layer(block, planes // 16, blocks, stride, dilate)


@contextmanager
def narrow_resnet18(narrow: bool = True) -> Iterator[None]:
    """Make every ResNet-18 a narrow one, or torchvision's again within such a block."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torchvision.models, "resnet18", NarrowResNet if narrow else _RESNET18)
        yield


@contextmanager
def narrow_detector() -> Iterator[None]:
    """Make the torchvision engine's detectors of ResNet-18 narrow in every part."""
    from detection.engines.torchvision import detector, regions  # for detection's tests alone

    with narrow_resnet18(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(detector, "PYRAMID_CHANNELS", 16)
        patch.setattr(regions, "FC_WIDTH", 32)
        yield


def is_narrow() -> bool:
    """Return whether a ResNet-18 is a narrow one."""
    return torchvision.models.resnet18 is NarrowResNet
