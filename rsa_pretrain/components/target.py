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


@torch.no_grad()
def update_target(target: nn.Module, online: nn.Module, ema_momentum: float) -> None:
    """Update the target: xi <- tau xi + (1 - tau) theta (BYOL Eq. 1).

    Parameters only: the target runs in train mode and its BatchNorm statistics are its own.

    Args:
        target: Network changed in place.
        online: Network of the same structure.
        ema_momentum: tau in [0, 1].
    """
    target_parameters: list[Tensor] = list(target.parameters())
    online_parameters: list[Tensor] = list(online.parameters())
    foreach_lerp_(target_parameters, online_parameters, 1 - ema_momentum)
