"""Scale features to unit norm, then to mean 0 and variance 1 per dimension, as Mean Shift does."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

_EPSILON = 1e-5
_ROWS_AT_ONCE = 8192


@dataclass(frozen=True)
class Standardisation:
    """(x / |x| - mean) / sqrt(variance + 1e-5), with fixed statistics.

    Attributes:
        mean: Of the unit-norm training features, (D,).
        variance: Their unbiased variance, (D,).
    """

    mean: Tensor
    variance: Tensor

    def __call__(self, features: Tensor) -> Tensor:
        """Scale features (N, D)."""
        mean, variance = self.mean.to(features.device), self.variance.to(features.device)
        return (functional.normalize(features) - mean) / (variance + _EPSILON).sqrt()


def measure(features: Tensor) -> Standardisation:
    """Compute the statistics of the training features, (N, D) with N > 1.

    Sums are float64 over blocks of rows, so that features larger than memory can be read from a
    file.
    """
    count = len(features)
    mean = torch.zeros(features.shape[1], dtype=torch.float64, device=features.device)
    for block in torch.split(features, _ROWS_AT_ONCE):
        mean += functional.normalize(block).double().sum(dim=0) / count
    variance = torch.zeros_like(mean)
    for block in torch.split(features, _ROWS_AT_ONCE):
        variance += (functional.normalize(block).double() - mean).square().sum(dim=0) / (count - 1)
    return Standardisation(mean.float(), variance.float())


def unscaled(features: Tensor) -> Tensor:
    """Return features unchanged."""
    return features
