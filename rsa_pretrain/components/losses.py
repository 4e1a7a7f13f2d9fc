"""Compute losses as pure tensor functions: no state, no collectives."""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class RSALoss(NamedTuple):
    """RSA's loss and its two parts, scalars."""

    total: Tensor
    weak: Tensor
    aggressive: Tensor


def negative_product(unit_predictions: Tensor, unit_targets: Tensor) -> Tensor:
    """Negative cosine similarity of unit vectors, averaged over the batch.

    Args:
        unit_predictions: (N, D), each row of norm 1.
        unit_targets: The same; receives no gradient.

    Returns:
        Scalar in [-1, 1].
    """
    return -(unit_predictions * unit_targets.detach()).sum(dim=1).mean()


def squared_distance(unit_predictions: Tensor, unit_targets: Tensor) -> Tensor:
    """Squared distance of unit vectors, ``2 - 2 cos``, averaged over the batch.

    Args:
        unit_predictions: (N, D), each row of norm 1.
        unit_targets: The same; receives no gradient.

    Returns:
        Scalar in [0, 4].
    """
    return 2 + 2 * negative_product(unit_predictions, unit_targets)


def negative_cosine(predictions: Tensor, targets: Tensor) -> Tensor:
    """Negative cosine similarity, averaged over the batch.

    SimSiam Eq. 1. Half-precision inputs are compared in float32.

    Args:
        predictions: Predictor outputs, (N, D), any norm.
        targets: (N, D), any norm; receives no gradient.

    Returns:
        Scalar in [-1, 1].

    Raises:
        ValueError: If the shapes disagree or are not (N, D).
    """
    return negative_product(*_unit_pair(predictions, targets))


def normalised_mse(predictions: Tensor, targets: Tensor) -> Tensor:
    """Squared distance of normalised vectors, averaged over the batch.

    RSA Eq. 2, BYOL Eq. 2. Half-precision inputs are compared in float32.

    Args:
        predictions: Online outputs, (N, D), any norm.
        targets: (N, D), any norm; receives no gradient.

    Returns:
        Scalar in [0, 4].

    Raises:
        ValueError: If the shapes disagree or are not (N, D).
    """
    return squared_distance(*_unit_pair(predictions, targets))


def rsa_loss(
    z_a: Tensor,
    z_a_prime: Tensor,
    z_w: Tensor,
    z_w_prime: Tensor,
    beta: float | Tensor,
    distance: Callable[[Tensor, Tensor], Tensor] = squared_distance,
) -> RSALoss:
    """Balance aggressive-weak against aggressive-aggressive pairs, RSA Eq. 5.

    L = (1 - beta) [L_mse(z_a, z_w') + L_mse(z_a', z_w)]
        + beta [L_mse(z_a, sg(z_a')) + L_mse(z_a', sg(z_a))]

    Args:
        z_a: Online predictions of the aggressive view v_a, (N, D).
        z_a_prime: The same for v_a'.
        z_w: Target projections of the weak view v_w, (N, D); receives no gradient.
        z_w_prime: The same for v_w'.
        beta: Weight of the aggressive-aggressive pairs, in [0, 1]. A 0-dim float64 tensor is not
            checked, since that would wait for its device.
        distance: L_mse of unit vectors, or another function that passes no gradient to its second
            argument.

    Returns:
        The loss; ``weak`` and ``aggressive`` are its unweighted bracketed sums.

    Raises:
        ValueError: If shapes disagree or beta is outside [0, 1].
    """
    z_a, z_a_prime = _unit_pair(z_a, z_a_prime)
    z_w, z_w_prime = _unit_pair(z_w, z_w_prime)
    if z_w.shape != z_a.shape:
        raise ValueError(
            f"predictions {tuple(z_a.shape)} and targets {tuple(z_w.shape)} must both be (N, D)"
        )
    weak = distance(z_a, z_w_prime) + distance(z_a_prime, z_w)
    aggressive = distance(z_a, z_a_prime) + distance(z_a_prime, z_a)
    rest = 1 - beta
    if isinstance(beta, Tensor) and isinstance(rest, Tensor):
        # As a float would be: rounded, once, to the type of the losses.
        rest, beta = rest.to(weak.dtype), beta.to(weak.dtype)
    elif not 0 <= beta <= 1:
        raise ValueError(f"beta must be in [0, 1], found {beta}")
    return RSALoss(rest * weak + beta * aggressive, weak, aggressive)


def nt_xent(
    projections: Tensor,
    projections_prime: Tensor,
    candidates: Tensor,
    candidates_prime: Tensor,
    first: int,
    temperature: float,
) -> Tensor:
    """Identify each view's partner among all other views of the batch.

    SimCLR Eq. 1, averaged over the 2 n views given as ``projections``; these are a part of the
    whole batch when it is spread over devices.

    Args:
        projections: Projections of the first views, (n, D), any norm.
        projections_prime: Those of the second views of the same images, (n, D).
        candidates: Those of the first views of the whole batch, (N, D).
        candidates_prime: Those of the second views of the whole batch, (N, D).
        first: Row of ``candidates`` that is row 0 of ``projections``.
        temperature: Dimensionless, > 0.

    Returns:
        Scalar in nats; gradients reach all four tensors.

    Raises:
        ValueError: If shapes disagree, rows are outside the batch, or temperature <= 0.
    """
    num_images, batch_size = len(projections), len(candidates)
    if projections.shape != projections_prime.shape or candidates.shape != candidates_prime.shape:
        raise ValueError(
            "the projections of the two views must have the same shape, found "
            f"{tuple(projections.shape)} and {tuple(projections_prime.shape)}, and of the whole "
            f"batch {tuple(candidates.shape)} and {tuple(candidates_prime.shape)}"
        )
    if not 0 <= first <= batch_size - num_images:
        raise ValueError(f"rows {first} to {first + num_images} are outside {batch_size} images")
    _check_temperature(temperature)
    anchors = _unit(torch.cat([projections, projections_prime]))  # (2 n, D)
    views = _unit(torch.cat([candidates, candidates_prime]))  # (2 N, D)
    rows = torch.arange(first, first + num_images, device=anchors.device)
    itself = torch.cat([rows, rows + batch_size])
    partner = torch.cat([rows + batch_size, rows])
    logits = _products(anchors, views) / temperature  # (2 n, 2 N)
    logits = logits.scatter(1, itself[:, None], float("-inf"))
    return F.cross_entropy(logits, partner)


def info_nce(queries: Tensor, keys: Tensor, queue: Tensor, temperature: float) -> Tensor:
    """Contrast each query with its own key against queued negatives.

    MoCo Eq. 1, averaged over the batch.

    Args:
        queries: Query projections, (N, D), any norm.
        keys: Key projections of the same images, (N, D), any norm; receives no gradient.
        queue: Unit-norm negatives, (K, D); receives no gradient.
        temperature: Dimensionless, > 0.

    Returns:
        Scalar in nats.

    Raises:
        ValueError: If shapes disagree or temperature <= 0.
    """
    if queries.shape != keys.shape or queries.ndim != 2 or queue.shape[1:] != queries.shape[1:]:
        raise ValueError(
            f"queries {tuple(queries.shape)} and keys {tuple(keys.shape)} must both be (N, D), "
            f"the queue (K, D), found {tuple(queue.shape)}"
        )
    _check_temperature(temperature)
    unit_queries = _unit(queries)
    positives = (unit_queries * _unit(keys.detach())).sum(dim=1, keepdim=True)  # (N, 1)
    negatives = _products(unit_queries, queue.detach())  # (N, K)
    logits = torch.cat([positives, negatives], dim=1) / temperature
    return F.cross_entropy(logits, logits.new_zeros(len(logits), dtype=torch.long))


def _unit_pair(predictions: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    if predictions.shape != targets.shape or predictions.ndim != 2:
        raise ValueError(
            f"predictions {tuple(predictions.shape)} and targets {tuple(targets.shape)} "
            "must both be (N, D)"
        )
    return _unit(predictions), _unit(targets)


def _unit(vectors: Tensor) -> Tensor:
    dtype = torch.promote_types(vectors.dtype, torch.float32)
    return F.normalize(vectors.to(dtype), dim=1)


def _products(left: Tensor, right: Tensor) -> Tensor:
    # Autocast would round similarities to half precision before they are divided by T.
    with torch.autocast(left.device.type, enabled=False):
        return left @ right.to(left.dtype).T


def _check_temperature(temperature: float) -> None:
    if temperature <= 0:
        raise ValueError(f"temperature must be above 0, found {temperature}")
