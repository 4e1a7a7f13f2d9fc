"""Optimizers and their learning rate."""

from torch import nn, optim

from rsa_pretrain.config import OptimizerConfig

REFERENCE_BATCH_SIZE = 256


def build_optimizer(model: nn.Module, config: OptimizerConfig) -> optim.SGD:
    """Build SGD over every parameter that takes a gradient; the rate is set per step."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return optim.SGD(
        parameters, lr=0.0, momentum=config.sgd_momentum, weight_decay=config.weight_decay
    )


def scaled_lr(base_lr: float, global_batch_size: int) -> float:
    """Scale a rate linearly with the batch (Goyal et al. 2017), base_lr being for 256 images."""
    return base_lr * global_batch_size / REFERENCE_BATCH_SIZE
