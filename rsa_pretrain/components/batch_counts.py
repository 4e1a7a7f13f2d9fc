"""Count BatchNorm's batches with one operation a network instead of one a layer."""

import torch.nn.functional as F
from torch import Tensor, nn

from rsa_pretrain.plumbing.torch_internals import foreach_add_


class _UncountedBatchNorm1d(nn.BatchNorm1d):
    def forward(self, input: Tensor) -> Tensor:
        return _normalised(self, input)


class _UncountedBatchNorm2d(nn.BatchNorm2d):
    def forward(self, input: Tensor) -> Tensor:
        return _normalised(self, input)


_UNCOUNTED: dict[type[nn.Module], type[nn.Module]] = {
    nn.BatchNorm1d: _UncountedBatchNorm1d,
    nn.BatchNorm2d: _UncountedBatchNorm2d,
}


def count_batches_together(network: nn.Module) -> None:
    """Let a network raise ``num_batches_tracked`` of all its layers before each forward.

    Its state and results stay the same. Each forward must use every layer once, as those of ResNets
    and heads do.

    Args:
        network: Changed in place; its BatchNorms have running statistics with a fixed momentum.
    """
    norms = [module for module in network.modules() if type(module) in _UNCOUNTED]
    for norm in norms:
        norm.__class__ = _UNCOUNTED[type(norm)]

    def count(network: nn.Module, _: object) -> None:
        if network.training:
            foreach_add_([norm.get_buffer("num_batches_tracked") for norm in norms], 1)

    if norms:
        network.register_forward_pre_hook(count)


def _normalised(norm: nn.BatchNorm1d | nn.BatchNorm2d, inputs: Tensor) -> Tensor:
    assert norm.momentum is not None
    return F.batch_norm(
        inputs,
        norm.running_mean,
        norm.running_var,
        norm.weight,
        norm.bias,
        norm.training,
        norm.momentum,
        norm.eps,
    )
