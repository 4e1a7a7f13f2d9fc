"""Give a ResNet's last map more places, by dilating stages instead of striding them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import get_args

from torch import nn

from rsa_eval.features.networks.foreign import ForeignNetwork
from rsa_pretrain.components.settings import Stage


@contextmanager
def dilated(backbone: nn.Module, output_stride: int) -> Iterator[None]:
    """Run a ResNet with at most so many pixels per place of its last map, inside the block.

    A stage that would go beyond loses its stride; its first 3 × 3 convolution is dilated as the
    stage before, its others as the strides left out require (Chen et al. 2017, DeepLab v3). This is
    torchvision's ``replace_stride_with_dilation``, and no tensor changes. Networks of other
    libraries stay as they are.

    Args:
        backbone: Any backbone of an evaluation.
        output_stride: Pixels per place: 8, 16 or 32.
    """
    before: list[tuple[nn.Conv2d, tuple[int, ...], tuple[int, ...], str | tuple[int, ...]]] = []
    for stage, dilation in _dilations(backbone, output_stride):
        for convolution in (one for one in stage.modules() if isinstance(one, nn.Conv2d)):
            own = (convolution.stride, convolution.dilation, convolution.padding)
            before.append((convolution, *own))
            _dilate(convolution, dilation)
    try:
        yield
    finally:
        for convolution, stride, dilation_before, padding in before:
            convolution.stride = stride
            convolution.dilation = dilation_before
            convolution.padding = padding


def _dilations(backbone: nn.Module, output_stride: int) -> Iterator[tuple[nn.Module, int]]:
    """Yield the stages to dilate, and how far."""
    if isinstance(backbone, ForeignNetwork):
        return
    stem = backbone.get_submodule("conv1")
    assert isinstance(stem, nn.Conv2d)
    pools = not isinstance(backbone.get_submodule("maxpool"), nn.Identity)
    stride = stem.stride[0] * (2 if pools else 1)
    for name in get_args(Stage):
        stride *= 1 if name == "layer1" else 2
        if stride > output_stride:
            yield backbone.get_submodule(name), stride // output_stride


def _dilate(convolution: nn.Conv2d, dilation: int) -> None:
    is_strided = convolution.stride == (2, 2)
    if is_strided:
        convolution.stride = (1, 1)
    if convolution.kernel_size == (3, 3):
        # Its input still has the places of the stage before.
        places = dilation // 2 if is_strided else dilation
        convolution.dilation = convolution.padding = (places, places)
