"""Small networks in place of ResNets: tests of what surrounds a network train it in a moment."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import pytest
import torchvision
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

_FULL = {name: getattr(torchvision.models, name) for name in ("resnet18", "resnet50")}


class NarrowResNet(ResNet):
    """ResNet with one block a stage and a sixteenth of the width there."""

    def __init__(self, block, *, weights, zero_init_residual):
        assert weights is None
        super().__init__(block, [1, 1, 1, 1], zero_init_residual=zero_init_residual)

    def _make_layer(self, block, planes, blocks, stride=1, dilate=False):
        return super()._make_layer(block, planes // 16, blocks, stride, dilate)


_NARROW = {
    "resnet18": partial(NarrowResNet, BasicBlock),
    "resnet50": partial(NarrowResNet, Bottleneck),
}


@contextmanager
def narrow_resnets(narrow: bool = True) -> Iterator[None]:
    """Make every ResNet-18 and -50 a narrow one, or torchvision's again within such a block."""
    from rsa_pretrain.weights.foreign import plan  # knows the tensors of each architecture

    with pytest.MonkeyPatch.context() as patch:
        for name, build in (_NARROW if narrow else _FULL).items():
            patch.setattr(torchvision.models, name, build)
        plan._expected.cache_clear()
        yield
    plan._expected.cache_clear()


@contextmanager
def narrow_detector() -> Iterator[None]:
    """Make the torchvision engine's detectors of such a ResNet narrow in every part."""
    from detection.engines.torchvision import detector, regions  # for detection's tests alone

    with narrow_resnets(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(detector, "PYRAMID_CHANNELS", 16)
        patch.setattr(regions, "FC_WIDTH", 32)
        yield


def is_narrow() -> bool:
    """Return whether these ResNets are narrow ones."""
    return torchvision.models.resnet18 is _NARROW["resnet18"]
