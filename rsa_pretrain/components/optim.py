"""Build optimizers and set their learning rate."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn, optim

from rsa_pretrain.components.settings import OptimizerConfig
from rsa_pretrain.plumbing.torch_internals import (
    foreach_add,
    foreach_add_,
    foreach_mul,
    foreach_mul_,
    foreach_norm,
)

REFERENCE_BATCH_SIZE = 256


def build_optimizer(model: nn.Module, config: OptimizerConfig) -> optim.Optimizer:
    """Build an optimizer of all trainable parameters; the learning rate is set per step."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if config.name == "lars":
        return LARS(parameters, config.sgd_momentum, config.weight_decay, config.trust_coefficient)
    group = {"params": parameters, "weight_decay": config.weight_decay}
    return fused_sgd([group], lr=0.0, momentum=config.sgd_momentum)


def fused_sgd(groups: list[dict[str, Any]], lr: float, momentum: float) -> optim.SGD:
    """Build torch's fused SGD with momentum buffers of zero.

    Args:
        groups: Parameter groups with their weight decay.
        lr: Learning rate.
        momentum: SGD momentum.
    """
    sgd = optim.SGD(groups, lr=lr, momentum=momentum, fused=True)
    if momentum != 0:
        # The fused kernel would leave its own buffers unset in a first step that fp16's gradient
        # scaler skips; from zero the first step is the same.
        for group in sgd.param_groups:
            for parameter in group["params"]:
                sgd.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return sgd


def scaled_lr(base_lr: float, global_batch_size: int) -> float:
    """Scale a rate linearly with the batch (Goyal et al. 2017), base_lr being for 256 images."""
    return base_lr * global_batch_size / REFERENCE_BATCH_SIZE


def trust_ratios(norms: Tensor, update_norms: Tensor, trust_coefficient: float) -> Tensor:
    """Return LARS's factor of each update: trust_coefficient |w| / |u|, 1 where either is 0."""
    ratios = trust_coefficient * norms / update_norms
    return torch.where((norms > 0) & (update_norms > 0), ratios, 1.0)


class LARS(optim.Optimizer):
    """Layer-wise adaptive rate scaling (You et al. 2017), as in BYOL's code.

    For a tensor w of two or more dimensions with gradient g:

        u = g + weight_decay w
        u = u * trust_coefficient |w| / |u|     (unchanged if |w| or |u| is 0)
        v = momentum v + u,  w = w - lr v

    SimCLR's code, like You et al., keeps the rate in the velocity (v = momentum v + lr u,
    w = w - v). The two agree while the rate is constant and differ while it changes: here a new
    rate scales the whole velocity, there only the newest update.

    Tensors of one dimension or none (biases, norms) are neither decayed nor adapted. All tensors
    are updated together, by ``torch._foreach`` operations. With an fp16 gradient scaler torch waits
    for the device once a step; bf16 needs no scaler.

    Args:
        parameters: Parameters to update.
        momentum: Momentum of the velocity v.
        weight_decay: L2 penalty.
        trust_coefficient: Length of a step relative to |w|, at lr 1.
        lr: Learning rate; schedules set it in ``param_groups``.
    """

    def __init__(
        self,
        parameters: Iterable[Tensor],
        momentum: float,
        weight_decay: float,
        trust_coefficient: float,
        lr: float = 0.0,
    ) -> None:
        listed = list(parameters)
        adapted = [parameter for parameter in listed if parameter.ndim > 1]
        plain = [parameter for parameter in listed if parameter.ndim <= 1]
        groups = [
            {"params": adapted, "weight_decay": weight_decay, "adapt": True},
            {"params": plain, "weight_decay": 0.0, "adapt": False},
        ]
        defaults = {"lr": lr, "momentum": momentum, "trust_coefficient": trust_coefficient}
        super().__init__([group for group in groups if group["params"]], defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Take one step; ``closure`` is not supported."""
        assert closure is None
        for group in self.param_groups:
            self._step_group(group)

    def _step_group(self, group: dict[str, Any]) -> None:
        parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
        if not parameters:
            return
        updates: tuple[Tensor, ...] = tuple(parameter.grad for parameter in parameters)
        if group["weight_decay"] != 0:
            updates = foreach_add(updates, parameters, alpha=group["weight_decay"])
        if group["adapt"]:
            norms = torch.stack(foreach_norm(parameters))
            update_norms = torch.stack(foreach_norm(updates))
            ratios = trust_ratios(norms, update_norms, group["trust_coefficient"])
            updates = foreach_mul(updates, list(ratios.unbind()))
        velocities = [self._velocity(parameter) for parameter in parameters]
        foreach_mul_(velocities, group["momentum"])
        foreach_add_(velocities, updates)
        foreach_add_(parameters, velocities, alpha=-group["lr"])

    def _velocity(self, parameter: Tensor) -> Tensor:
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        velocity: Tensor = state["momentum_buffer"]
        return velocity
