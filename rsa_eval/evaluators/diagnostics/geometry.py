"""Label-free measures of feature geometry: effective rank, alignment, uniformity.

Each takes features of any norm, (N, D), computes in float64 on their device, and needs memory
for one chunk beside them.
"""

from torch import Tensor
from torch.nn import functional

from rsa_eval.evaluators.diagnostics.spectrum import singular_values, smooth_rank


def rank_me(features: Tensor, chunk_size: int = 4096) -> float:
    """Return RankMe, a smooth count of the dimensions that features span.

    Garrido et al. 2023, Eqs. (1) and (2): exp(-Σ p_k log p_k) with p_k = σ_k / Σ σ + ε over the
    min(N, D) singular values σ of the raw matrix, neither centred nor normalised.

    Args:
        features: (N, D).
        chunk_size: Rows folded at a time into a triangular matrix of the same singular values.

    Returns:
        From 1 to min(N, D), up to ε; 0 if all features are zero.

    Raises:
        UserError: If a feature is not finite.
    """
    return smooth_rank(singular_values(features, chunk_size=chunk_size))


def alignment(first: Tensor, second: Tensor, alpha: float = 2.0) -> float:
    """Return the mean distance between unit features of two views of the same images.

    Wang & Isola 2020, Section 4.1: E ‖f(x) - f(y)‖^α over positive pairs.

    Args:
        first: Features of one view of each image, (N, D).
        second: Features of another view of the same images, in the same order.
        alpha: Exponent; 2 in the paper's experiments.

    Returns:
        0 for identical views; 2 for orthogonal and 4 for opposite features if ``alpha`` is 2.

    Raises:
        ValueError: If the shapes disagree or there are no pairs.
    """
    if first.shape != second.shape or len(first) == 0:
        raise ValueError(f"expected pairs, found {tuple(first.shape)} and {tuple(second.shape)}")
    return float((_unit(first) - _unit(second)).norm(dim=1).pow(alpha).mean())


def uniformity(features: Tensor, t: float = 2.0, chunk_size: int = 256) -> float:
    """Return the logarithm of the mean Gaussian potential of all pairs of unit features.

    Wang & Isola 2020, Section 4.1: log E exp(-t ‖f(x) - f(y)‖²), over the N (N - 1) / 2 pairs of
    different images, as in the authors' code.

    Args:
        features: (N, D), N at least 2.
        t: Sharpness of the potential; 2 in the paper's experiments.
        chunk_size: Rows compared at a time with all later rows.

    Returns:
        0 if all features point the same way, about -2 t if they spread over a high-dimensional
        sphere; lower is more uniform.

    Raises:
        ValueError: If there are fewer than two features.
    """
    if len(features) < 2:
        raise ValueError(f"uniformity needs at least 2 features, found {len(features)}")
    unit = _unit(features)
    squares = unit.square().sum(dim=1)
    potential = unit.new_zeros(())
    for start in range(0, len(unit), chunk_size):
        rows, others = unit[start : start + chunk_size], unit[start:]
        distances = (
            squares[start : start + chunk_size, None] + squares[start:] - 2 * rows @ others.T
        )
        # Row i of the chunk is row i of the others; only pairs above the diagonal are new.
        potential += (-t * distances.clamp_min(0)).exp().triu(diagonal=1).sum()
    num_pairs = len(unit) * (len(unit) - 1) / 2
    return float((potential / num_pairs).log())


def _unit(features: Tensor) -> Tensor:
    return functional.normalize(features.double(), dim=1)
