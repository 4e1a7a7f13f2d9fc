"""Small networks in place of ResNets: tests of what surrounds a network train it in a moment."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from rsa_pretrain.components import backbone

_FULL = backbone._ScaledResNet


class NarrowResNet(_FULL):
    """ResNet with one block a stage and a sixteenth of the width there."""

    def __init__(self, config):
        block, _ = backbone._BLOCKS[config.arch]
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(backbone._BLOCKS, config.arch, (block, [1, 1, 1, 1]))
            super().__init__(config)

    def _make_layer(self, block, planes, blocks, stride=1, dilate=False):
        return super()._make_layer(block, planes // 16, blocks, stride, dilate)


@contextmanager
def narrow_resnets(narrow: bool = True) -> Iterator[None]:
    """Make every ResNet a narrow one, or torchvision's again within such a block."""
    from rsa_pretrain.weights.foreign import plan  # knows the tensors of each architecture

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backbone, "_ScaledResNet", NarrowResNet if narrow else _FULL)
        plan._expected.cache_clear()
        yield
    plan._expected.cache_clear()


@contextmanager
def narrow_detector() -> Iterator[None]:
    """Make the torchvision engine's detectors of such a ResNet narrow in every part."""
    from detection.engines.torchvision import detector, pyramid_heads  # for detection's tests

    with narrow_resnets(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(detector, "PYRAMID_CHANNELS", 16)
        patch.setattr(pyramid_heads, "FC_WIDTH", 32)
        yield


def is_narrow() -> bool:
    """Return whether these ResNets are narrow ones."""
    return backbone._ScaledResNet is NarrowResNet
