"""Train several linear classifiers at once, with one matrix product, loss and step for all."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rsa_eval.evaluators.linear.settings import ProbeConfig
from rsa_pretrain.components.optim import scaled_lr, trust_ratios
from rsa_pretrain.plumbing.distributed import sum_over_ranks
from rsa_pretrain.plumbing.seeded import seeded


@dataclass(frozen=True)
class Heads:
    """H classifiers of C classes on features of width D.

    Attributes:
        weight: (H, C, D).
        bias: (H, C).
    """

    weight: Tensor
    bias: Tensor

    def scores(self, features: Tensor) -> Tensor:
        """Return each head's logits, (N, H, C), for features (N, D)."""
        rows = self.weight.flatten(0, 1)
        logits = torch.addmm(self.bias.flatten(), features, rows.T)
        return logits.view(len(features), *self.bias.shape)


def new_heads(
    feature_dim: int, num_classes: int, probe: ProbeConfig, seed: int, device: torch.device
) -> Heads:
    """Build one head per learning rate, all with the same weights.

    Weights are drawn from N(0, ``init_std``²) and biases are 0; without ``init_std`` both are
    drawn as by ``nn.Linear``.
    """
    if probe.init_std is None:
        with seeded(seed):
            layer = nn.Linear(feature_dim, num_classes)
        weight, bias = layer.weight.detach(), layer.bias.detach()
    else:
        generator = torch.Generator().manual_seed(seed)
        weight = torch.empty(num_classes, feature_dim)
        weight.normal_(0.0, probe.init_std, generator=generator)
        bias = torch.zeros(num_classes)
    num_heads = len(probe.base_lr)
    return Heads(
        weight.to(device).repeat(num_heads, 1, 1),
        bias.to(device).repeat(num_heads, 1),
    )


class HeadTrainer:
    """SGD or LARS with momentum, on all heads at once, each at its own rate.

    A head's loss is the mean cross-entropy over the images of a step, over all processes. The
    gradient is written out, since for so small a model automatic differentiation would dominate
    the cost:

        p = softmax(W x + b),  dL/dW = mean (p - y) xᵀ,  dL/db = mean (p - y)

    The step is that of ``torch.optim.SGD``. LARS first scales each head's gradients of W and b,
    including weight decay, to the norms trust_coefficient |W| and trust_coefficient |b|. (In
    pretraining LARS does not adapt biases; SimSiam's probe, which uses apex's LARC, does.)

    Args:
        heads: Trained in place.
        probe: Optimizer and rates.
    """

    def __init__(self, heads: Heads, probe: ProbeConfig) -> None:
        self.heads = heads
        self.probe = probe
        rates = [scaled_lr(base_lr, probe.batch_size) for base_lr in probe.base_lr]
        self._rates = torch.tensor(rates, dtype=heads.weight.dtype, device=heads.weight.device)
        self.velocities = [torch.zeros_like(heads.weight), torch.zeros_like(heads.bias)]
        # Gradients and losses share one buffer, so that processes exchange a single tensor.
        sizes = [heads.weight.numel(), heads.bias.numel(), len(rates)]
        self._exchanged = heads.weight.new_empty(sum(sizes))
        weight, bias, self._losses = torch.split(self._exchanged, sizes)
        self._gradients = [weight.view_as(heads.weight), bias.view_as(heads.bias)]

    @torch.no_grad()
    def step(self, features: Tensor, labels: Tensor, batch_size: int, decay: float) -> Tensor:
        """Take one step.

        Args:
            features: This process's share of the batch, (n, D); n may be 0.
            labels: Its class indices, int64 (n,).
            batch_size: Images of the whole batch, over all processes.
            decay: The schedule's factor on the learning rates.

        Returns:
            The mean loss of each head before the step, in nats, (H,); valid until the next step.
        """
        self._differentiate(features, labels, batch_size)
        sum_over_ranks(self._exchanged)
        for parameter, gradient, velocity in zip(
            (self.heads.weight, self.heads.bias), self._gradients, self.velocities, strict=True
        ):
            self._update(parameter, gradient, velocity, decay)
        return self._losses

    def _differentiate(self, features: Tensor, labels: Tensor, batch_size: int) -> None:
        """Compute these rows' contribution to the gradients and mean losses."""
        weight_gradient, bias_gradient = self._gradients
        log_probabilities = self.heads.scores(features).log_softmax(dim=2)  # (n, H, C)
        own = labels[:, None, None].expand(-1, len(self._losses), 1)
        own_log_probabilities = log_probabilities.gather(2, own)[:, :, 0]  # (n, H)
        torch.sum(own_log_probabilities, dim=0, out=self._losses).div_(-batch_size)
        residuals = log_probabilities.exp_()
        residuals.scatter_add_(2, own, residuals.new_full((), -1.0).expand(own.shape))
        residuals.div_(batch_size)
        torch.mm(residuals.flatten(1).T, features, out=weight_gradient.flatten(0, 1))
        torch.sum(residuals, dim=0, out=bias_gradient)

    def _update(self, parameter: Tensor, update: Tensor, velocity: Tensor, decay: float) -> None:
        probe = self.probe
        if probe.weight_decay != 0:
            update.add_(parameter, alpha=probe.weight_decay)
        if probe.optimizer == "lars":
            norms, update_norms = (tensor.flatten(1).norm(dim=1) for tensor in (parameter, update))
            ratios = trust_ratios(norms, update_norms, probe.trust_coefficient)
            update.mul_(_per_head(ratios, update))
        velocity.mul_(probe.sgd_momentum).add_(update)
        direction = update.add_(velocity, alpha=probe.sgd_momentum) if probe.nesterov else velocity
        parameter.addcmul_(_per_head(self._rates, parameter), direction, value=-decay)


def _per_head(values: Tensor, like: Tensor) -> Tensor:
    """Reshape one value per head, (H,), to broadcast over a tensor of heads."""
    return values.view(-1, *[1] * (like.ndim - 1))
