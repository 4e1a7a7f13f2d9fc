"""Schedule the learning rate of a run."""

from rsa_pretrain.components.optim import scaled_lr
from rsa_pretrain.components.schedules import warmup_cosine
from rsa_pretrain.config import PretrainConfig


def learning_rate(config: PretrainConfig, progress: float) -> float:
    """Return the rate at a share of the run, in [0, 1): linear warm-up, then cosine to 0."""
    optimizer, training = config.optimizer, config.training
    peak = scaled_lr(optimizer.base_lr, training.global_batch_size)
    return warmup_cosine(peak, optimizer.warmup_epochs / training.epochs, progress)
