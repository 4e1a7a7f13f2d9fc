"""LiDAR: the rank of what distinguishes images beyond what distinguishes their views."""

from collections.abc import Sequence

import torch
from torch import Tensor

from rsa_eval.evaluators.diagnostics.spectrum import centre_of, smooth_rank
from rsa_pretrain.plumbing.errors import UserError

LIDAR_DELTA = 1e-4
"""Added to the within-image covariance. The paper states no value; this is that of public
implementations (stable-pretraining; Skean et al. 2025)."""


def lidar(views: Sequence[Tensor], delta: float = LIDAR_DELTA, chunk_size: int = 4096) -> float:
    """Return LiDAR, the effective rank of the linear discriminant matrix of images and views.

    Thilak et al. 2024, Eqs. (1) to (4), for views x̃ of images x:

        Σ_b = E_x (μ_x - μ) (μ_x - μ)ᵀ, with μ_x = E f(x̃) and μ = E_x μ_x,
        Σ_w = E_x E (f(x̃) - μ_x) (f(x̃) - μ_x)ᵀ + δ I,
        exp(-Σ p_k log p_k) with p_k = λ_k / Σ λ + ε,

    over the eigenvalues λ of Σ_w^(-1/2) Σ_b Σ_w^(-1/2). Both covariances are unbiased estimates
    from n images and q views of each (n - 1, n (q - 1)). ε is RankMe's; the paper states no value.
    The paper recommends more images than features and q = 50, and applies the measure to the
    projector's output or the backbone's. Since δ is absolute, scaling features by c is the same as
    dividing δ by c².

    Args:
        views: q views of the same images in the same order: each view's features, (n, D).
        delta: δ, positive.
        chunk_size: Rows (images times views) read at a time; two (D, D) matrices are kept.

    Returns:
        From 1 to min(n - 1, D), up to ε.

    Raises:
        UserError: If there are fewer than two views or images, the shapes disagree, a feature is
            not finite, all features are the same, or ``delta`` is not positive or too small.
    """
    if len(views) < 2 or len({view.shape for view in views}) > 1:
        shapes = ", ".join(str(tuple(view.shape)) for view in views[:3])
        raise UserError(
            f"LiDAR needs 2 views or more of the same images, found {len(views)}: {shapes}"
        )
    if delta <= 0:
        raise UserError(f"LiDAR needs a positive delta, found {delta:g}")
    between, within = _covariances(views, centre_of(views, "LiDAR", chunk_size), chunk_size)
    within.diagonal().add_(delta)
    # With Σ_w = L Lᵀ, the matrix L⁻¹ Σ_b L⁻ᵀ has the eigenvalues of Σ_w^(-1/2) Σ_b Σ_w^(-1/2).
    triangle, failed = torch.linalg.cholesky_ex(within)
    if failed:
        raise UserError(
            f"the features are too large for LiDAR's delta, {delta:g}, which rounding of their "
            "covariance outweighs; divide features by a constant or raise delta"
        )
    half = torch.linalg.solve_triangular(triangle, between, upper=False)
    discriminant = torch.linalg.solve_triangular(triangle, half.T, upper=False)
    eigenvalues = torch.linalg.eigvalsh((discriminant + discriminant.T) / 2)
    return smooth_rank(eigenvalues.clamp_min(0))


def _covariances(views: Sequence[Tensor], centre: Tensor, chunk_size: int) -> tuple[Tensor, Tensor]:
    """Return Σ_b and Σ_w without δ, (D, D) each."""
    (num_images, width), num_views = views[0].shape, len(views)
    between = torch.zeros(width, width, dtype=torch.float64, device=centre.device)
    within = torch.zeros_like(between)
    rows = max(1, chunk_size // num_views)
    for parts in zip(*(torch.split(view, rows) for view in views), strict=True):
        chunk = torch.stack(parts).double()
        means = chunk.mean(dim=0)
        spread = (chunk - means).flatten(0, 1)
        within.addmm_(spread.T, spread)
        between.addmm_((means - centre).T, means - centre)
    return between / (num_images - 1), within / (num_images * (num_views - 1))
