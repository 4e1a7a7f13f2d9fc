"""Freeze a backbone for the length of a block."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from rsa_eval.features.networks.interface import every_tensor, explain_changes


@contextmanager
def frozen(backbone: nn.Module) -> Iterator[None]:
    """Keep a backbone in eval mode without gradients, and check afterwards that it is unchanged.

    In train mode BatchNorm would normalise by, and update, the statistics of the evaluated
    images. Modes and ``requires_grad`` are restored at the end.

    Args:
        backbone: The network.

    Raises:
        RuntimeError: If any bit of a parameter or buffer of a ResNet changed.
        UserError: If one of another network did.
    """
    before = {name: tensor.detach().clone() for name, tensor in every_tensor(backbone).items()}
    modes = {module: module.training for module in backbone.modules()}
    gradients = {parameter: parameter.requires_grad for parameter in backbone.parameters()}
    backbone.eval().requires_grad_(False)
    try:
        yield
        after = every_tensor(backbone)
        names = [*before, *(name for name in after if name not in before)]
        moved = [name for name in names if not _is_same(before.get(name), after.get(name))]
        if moved:
            raise explain_changes(backbone, moved)
    finally:
        for module, training in modes.items():
            module.training = training
        for parameter, requires_grad in gradients.items():
            parameter.requires_grad_(requires_grad)


def _is_same(first: Tensor | None, second: Tensor | None) -> bool:
    if first is None or second is None or first.shape != second.shape:
        return False
    # Comparing bytes distinguishes -0.0 from 0.0 and treats a NaN as equal to itself.
    return torch.equal(
        first.reshape(-1).contiguous().view(torch.uint8),
        second.detach().reshape(-1).contiguous().view(torch.uint8),
    )
