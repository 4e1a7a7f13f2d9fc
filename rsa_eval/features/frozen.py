"""Freeze a backbone for the length of a block."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def frozen(backbone: nn.Module) -> Iterator[None]:
    """Keep a backbone in eval mode without gradients, and check afterwards that it is unchanged.

    In train mode BatchNorm would normalise by, and update, the statistics of the evaluated
    images. Modes and ``requires_grad`` are restored at the end.

    Args:
        backbone: The network.

    Raises:
        RuntimeError: If any bit of a parameter or buffer changed.
    """
    before = {name: tensor.detach().clone() for name, tensor in backbone.state_dict().items()}
    modes = {module: module.training for module in backbone.modules()}
    gradients = {parameter: parameter.requires_grad for parameter in backbone.parameters()}
    backbone.eval().requires_grad_(False)
    try:
        yield
        after = backbone.state_dict()
        moved = [name for name in before if not _same_bits(before[name], after[name])]
        if moved:
            raise RuntimeError(f"the frozen backbone changed: {', '.join(moved[:5])}")
    finally:
        for module, training in modes.items():
            module.training = training
        for parameter, requires_grad in gradients.items():
            parameter.requires_grad_(requires_grad)


def _same_bits(first: Tensor, second: Tensor) -> bool:
    # Comparing bytes distinguishes -0.0 from 0.0 and treats a NaN as equal to itself.
    return torch.equal(
        first.reshape(-1).contiguous().view(torch.uint8),
        second.detach().reshape(-1).contiguous().view(torch.uint8),
    )
