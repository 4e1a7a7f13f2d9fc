"""Maintain the target network, an exponential moving average of the online parameters."""

import copy

import torch
from torch import Tensor, nn

from rsa_pretrain.plumbing.torch_internals import foreach_lerp_


def make_target(online: nn.Module) -> nn.Module:
    """Copy a network as its target at step 0, without gradients."""
    target = copy.deepcopy(online)
    target.requires_grad_(False)
    return target


class TargetUpdate:
    """Updates targets: xi <- tau xi + (1 - tau) theta (BYOL Eq. 1).

    Parameters only: the target runs in train mode and its BatchNorm statistics are its own. They
    are listed once; moving or loading the networks keeps them.

    Args:
        pairs: Each target, which is changed in place, with the online network of its structure.
    """

    def __init__(self, *pairs: tuple[nn.Module, nn.Module]) -> None:
        self._target: list[Tensor] = [xi for target, _ in pairs for xi in target.parameters()]
        self._online: list[Tensor] = [theta for _, online in pairs for theta in online.parameters()]

    @torch.no_grad()
    def __call__(self, ema_momentum: float) -> None:
        """Take one step, with tau in [0, 1]."""
        foreach_lerp_(self._target, self._online, 1 - ema_momentum)
