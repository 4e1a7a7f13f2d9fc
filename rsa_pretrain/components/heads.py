"""Build projectors and predictors as in each method's paper and public code."""

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


def build_plain_mlp(input_dim: int, hidden_dim: int, output_dim: int) -> nn.Sequential:
    """Build Linear, ReLU, Linear (MoCo v2's public code).

    Returns:
        Module from (N, ``input_dim``) to (N, ``output_dim``).
    """
    return nn.Sequential(
        nn.Linear(input_dim, hidden_dim),
        nn.ReLU(inplace=True),
        nn.Linear(hidden_dim, output_dim),
    )


def build_simclr_projector(input_dim: int, hidden_dim: int, output_dim: int) -> nn.Sequential:
    """Build SimCLR's projector as in its public code: Linear, BatchNorm, ReLU, Linear, BatchNorm.

    The paper (Section 2.1) names no BatchNorm; the code has one after each layer, the last without
    a shift, and draws the layers' weights from N(0, 0.01).

    Returns:
        Module from (N, ``input_dim``) to (N, ``output_dim``).
    """
    hidden = nn.Linear(input_dim, hidden_dim, bias=False)
    output = nn.Linear(hidden_dim, output_dim, bias=False)
    for layer in (hidden, output):
        nn.init.normal_(layer.weight, std=0.01)
    last_norm = nn.BatchNorm1d(output_dim)
    last_norm.bias.requires_grad_(False)
    return nn.Sequential(
        hidden, nn.BatchNorm1d(hidden_dim), nn.ReLU(inplace=True), output, last_norm
    )


def build_simsiam_projector(input_dim: int, width: int, num_layers: int) -> nn.Sequential:
    """Build SimSiam's projector (Section 3): BatchNorm after every layer, no ReLU at the end.

    The last BatchNorm has no affine parameters, as in the public code.

    Returns:
        Module from (N, ``input_dim``) to (N, ``width``).
    """
    layers: list[nn.Module] = []
    for index in range(num_layers - 1):
        layers += [
            nn.Linear(input_dim if index == 0 else width, width, bias=False),
            nn.BatchNorm1d(width),
            nn.ReLU(inplace=True),
        ]
    layers += [nn.Linear(width, width, bias=False), nn.BatchNorm1d(width, affine=False)]
    return nn.Sequential(*layers)


def build_simsiam_predictor(width: int, hidden_dim: int) -> nn.Sequential:
    """Build SimSiam's predictor (Section 3): a bottleneck, BatchNorm only on the hidden layer.

    Returns:
        Module from (N, ``width``) to (N, ``width``).
    """
    return nn.Sequential(
        nn.Linear(width, hidden_dim, bias=False),
        nn.BatchNorm1d(hidden_dim),
        nn.ReLU(inplace=True),
        nn.Linear(hidden_dim, width),
    )
