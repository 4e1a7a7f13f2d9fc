"""Projector and predictor: the two-layer MLPs of BYOL."""

from torch import nn


def build_mlp(input_dim: int, hidden_dim: int, output_dim: int) -> nn.Sequential:
    """Build Linear, BatchNorm, ReLU, Linear without bias (RSA's release; BYOL, appendix C.1).

    Returns:
        Module from (N, ``input_dim``) to (N, ``output_dim``).
    """
    return nn.Sequential(
        nn.Linear(input_dim, hidden_dim),
        nn.BatchNorm1d(hidden_dim),
        nn.ReLU(inplace=True),
        nn.Linear(hidden_dim, output_dim, bias=False),
    )
