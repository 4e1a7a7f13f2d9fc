"""Losses as pure tensor functions: no state, no collectives."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class RSALoss(NamedTuple):
    """RSA's loss and its two parts, scalars."""

    total: Tensor
    weak: Tensor
    aggressive: Tensor


def normalised_mse(predictions: Tensor, targets: Tensor) -> Tensor:
    """Squared distance of unit vectors, ``2 - 2 cos``, averaged over the batch.

    RSA Eq. 2, BYOL Eq. 2. Half-precision inputs are compared in float32.

    Args:
        predictions: Online outputs, (N, D), any norm.
        targets: (N, D), any norm; receives no gradient.

    Returns:
        Scalar in [0, 4].

    Raises:
        ValueError: If the shapes disagree or are not (N, D).
    """
    if predictions.shape != targets.shape or predictions.ndim != 2:
        raise ValueError(
            f"predictions {tuple(predictions.shape)} and targets {tuple(targets.shape)} "
            "must both be (N, D)"
        )
    dtype = torch.promote_types(predictions.dtype, torch.float32)
    unit_predictions = F.normalize(predictions.to(dtype), dim=1)
    unit_targets = F.normalize(targets.detach().to(dtype), dim=1)
    return 2 - 2 * (unit_predictions * unit_targets).sum(dim=1).mean()


def rsa_loss(
    z_a: Tensor, z_a_prime: Tensor, z_w: Tensor, z_w_prime: Tensor, beta: float
) -> RSALoss:
    """Balance aggressive-weak against aggressive-aggressive pairs, RSA Eq. 5.

    L = (1 - beta) [L_mse(z_a, z_w') + L_mse(z_a', z_w)]
        + beta [L_mse(z_a, sg(z_a')) + L_mse(z_a', sg(z_a))]

    Args:
        z_a: Online predictions of the aggressive view v_a, (N, D).
        z_a_prime: Of v_a'.
        z_w: Target projections of the weak view v_w, (N, D); receives no gradient.
        z_w_prime: Of v_w'.
        beta: Weight of the aggressive-aggressive pairs, in [0, 1].

    Returns:
        The loss; ``weak`` and ``aggressive`` are its unweighted bracketed sums.

    Raises:
        ValueError: If shapes disagree or beta is outside [0, 1].
    """
    if not 0 <= beta <= 1:
        raise ValueError(f"beta must lie in [0, 1], found {beta}")
    weak = normalised_mse(z_a, z_w_prime) + normalised_mse(z_a_prime, z_w)
    aggressive = normalised_mse(z_a, z_a_prime) + normalised_mse(z_a_prime, z_a)
    return RSALoss((1 - beta) * weak + beta * aggressive, weak, aggressive)
