"""A backbone held still."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def frozen(backbone: nn.Module) -> Iterator[None]:
    """Hold a backbone in eval mode without gradients, and prove afterwards that it did not move.

    In train mode BatchNorm would normalise by, and learn, the statistics of the evaluated
    images. Modes and ``requires_grad`` are given back at the end.

    Args:
        backbone: The network.

    Raises:
        RuntimeError: If a parameter or buffer differs in a single bit from before.
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
            raise RuntimeError(f"the frozen backbone moved: {', '.join(moved[:5])}")
    finally:
        for module, training in modes.items():
            module.training = training
        for parameter, requires_grad in gradients.items():
            parameter.requires_grad_(requires_grad)


def _same_bits(first: Tensor, second: Tensor) -> bool:
    # Comparing bytes tells -0.0 from 0.0 and finds a NaN equal to itself.
    return torch.equal(
        first.reshape(-1).contiguous().view(torch.uint8),
        second.detach().reshape(-1).contiguous().view(torch.uint8),
    )
