"""Spectra of features: how many directions they span, and how fast their variance decays.

Each function takes features of any norm, computes in float64 on their device, and needs memory
for one chunk beside them.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from rsa_pretrain.plumbing.errors import UserError

RANKME_EPSILON = 1e-7
"""Added to each share of the spectrum by Garrido et al. 2023, for float32 features."""

# Standard deviation of rounding to multiples of 1, 1 / √12 = 0.29, with a margin.
_ROUNDING = 0.5

ALPHA_FIRST, ALPHA_LAST = 4, 100
"""First and last eigenvalue, counted from 1, to which α-ReQ's code fits its power law."""


def singular_values(
    features: Tensor, centre: Tensor | None = None, chunk_size: int = 4096
) -> Tensor:
    """Return the min(N, D) singular values of features, in decreasing order, float64.

    Args:
        features: (N, D).
        centre: Subtracted from each row, (D,); None leaves the rows as they are.
        chunk_size: Rows folded at a time into a triangular matrix of the same singular values.

    Raises:
        UserError: If a feature is not finite.
    """
    triangle = features.new_empty((0, features.shape[1]), dtype=torch.float64)
    for chunk in torch.split(features, chunk_size):
        rows = chunk.double() if centre is None else chunk.double() - centre
        triangle = torch.linalg.qr(torch.cat([triangle, rows]), mode="r").R
    if not triangle.isfinite().all():
        raise UserError("a spectrum needs finite features; extract them at precision fp32")
    values: Tensor = torch.linalg.svdvals(triangle)
    return values


def smooth_rank(values: Tensor) -> float:
    """Return exp(-Σ p_k log p_k) for the shares p_k of values plus ε; 0 if all are zero.

    Roy & Vetterli 2007, with the ε of Garrido et al. 2023, Eq. (2).

    Args:
        values: Non-negative, float64 (K,).
    """
    total = values.sum()
    if total == 0:
        return 0.0
    shares = values / total + RANKME_EPSILON
    return float((-(shares * shares.log()).sum()).exp())


def eigenspectrum(features: Tensor, chunk_size: int = 4096) -> Tensor:
    """Return the eigenvalues of the features' covariance as shares of their sum.

    Args:
        features: (N, D).
        chunk_size: Rows read at a time.

    Returns:
        In decreasing order, float64; those that rounding to the features' type could cause are
        left out, so there are at most min(N - 1, D).

    Raises:
        UserError: If there are fewer than two features, one is not finite, or all are the same.
    """
    centre = centre_of([features], "alpha", chunk_size)
    values = singular_values(features, centre, chunk_size)
    # Rounding to their type adds a matrix of independent entries, of standard deviation 0.29 eps
    # times their root mean square or less; its largest singular value is near that times √N + √D
    # (Davidson & Szarek 2001).
    count, width = features.shape
    norm = _mean_square([features], chunk_size).sqrt()
    entry = _ROUNDING * torch.finfo(features.dtype).eps * norm / width**0.5
    computed = torch.finfo(torch.float64).eps * norm * count**0.5
    smallest = torch.maximum(entry * (count**0.5 + width**0.5), computed)
    eigenvalues = values[values > smallest].square()
    return eigenvalues / eigenvalues.sum()


def alpha_req(features: Tensor, chunk_size: int = 4096) -> float:
    """Return α-ReQ, the exponent of the power law by which the eigenspectrum decays.

    Agrawal et al. 2022: λ_i ∝ i^-α for the eigenvalues of the features' covariance.
    The paper fits a line to log λ over log i; as in its code (``fastssl``), it is fitted to
    eigenvalues 4 to 100 with weights 1 / i. With fewer eigenvalues the fit ends at the last one.

    Args:
        features: (N, D).
        chunk_size: Rows read at a time.

    Returns:
        0 for a flat spectrum; the paper finds values near 1 best.

    Raises:
        UserError: As ``eigenspectrum``, or if there are fewer than five eigenvalues.
    """
    return power_law_exponent(eigenspectrum(features, chunk_size))


def power_law_exponent(eigenvalues: Tensor) -> float:
    """Return the exponent of the power law fitted to eigenvalues 4 to 100, as ``alpha_req``.

    Args:
        eigenvalues: Positive, in decreasing order, float64 (K,).

    Raises:
        UserError: If there are fewer than five eigenvalues.
    """
    fitted = eigenvalues[ALPHA_FIRST - 1 : ALPHA_LAST]
    if len(fitted) < 2:
        raise UserError(
            f"alpha is fitted to eigenvalue {ALPHA_FIRST} and later ones, at least two; found "
            f"{len(eigenvalues)} eigenvalues: give more images, or features of more directions"
        )
    ranks = torch.arange(ALPHA_FIRST, ALPHA_FIRST + len(fitted)).to(fitted)
    weights = 1 / ranks
    weights /= weights.sum()
    x, y = ranks.log(), fitted.log()
    x = x - weights @ x
    return -float((weights * x) @ y / ((weights * x) @ x))


def centre_of(parts: Sequence[Tensor], measure: str, chunk_size: int) -> Tensor:
    """Return the mean of features that differ from each other, (D,) in float64.

    Args:
        parts: Features, each (N, D).
        measure: Its name, for errors.
        chunk_size: Rows read at a time.

    Raises:
        UserError: If the features are not two or more rows, one is not finite, or they differ by
            no more than rounding.
    """
    for part in parts:
        if part.ndim != 2 or len(part) < 2 or not part.is_floating_point():
            raise UserError(
                f"{measure} needs features (N, D) of 2 images or more, found {part.dtype} "
                f"{tuple(part.shape)}"
            )
    total = torch.zeros(parts[0].shape[1], dtype=torch.float64, device=parts[0].device)
    for part in parts:
        for chunk in torch.split(part, chunk_size):
            total += chunk.double().sum(dim=0)
    if not total.isfinite().all():
        raise UserError(f"{measure} needs finite features; extract them at precision fp32")
    centre = total / sum(map(len, parts))
    scale = torch.finfo(parts[0].dtype).eps ** 2 * _mean_square(parts, chunk_size)
    if _mean_square(parts, chunk_size, centre) <= scale:
        raise UserError(
            f"{measure} needs features that differ; all images have the same (collapse)"
        )
    return centre


def _mean_square(parts: Sequence[Tensor], chunk_size: int, centre: Tensor | None = None) -> Tensor:
    """Return the mean squared norm of features, or of their distance from a centre."""
    total = torch.zeros((), dtype=torch.float64, device=parts[0].device)
    for part in parts:
        for chunk in torch.split(part, chunk_size):
            rows = chunk.double() if centre is None else chunk.double() - centre
            total += rows.square().sum()
    return total / sum(map(len, parts))
