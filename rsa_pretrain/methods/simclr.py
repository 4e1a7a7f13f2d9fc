"""SimCLR: A Simple Framework for Contrastive Learning (Chen et al., ICML 2020)."""

from collections.abc import Mapping

from torch import Tensor, nn

from rsa_pretrain.components.backbone import feature_dim
from rsa_pretrain.components.collapse import projection_std
from rsa_pretrain.components.heads import build_simclr_projector
from rsa_pretrain.components.losses import nt_xent
from rsa_pretrain.methods.base import Method, Scalar, StepOutput
from rsa_pretrain.methods.settings import SimCLRConfig
from rsa_pretrain.plumbing.distributed import gather_with_gradient, rank


class SimCLR(Method):
    """Contrasts each view with all other views of the batch, including those on other devices.

    Args:
        backbone: f, from (N, 3, H, W) to (N, F).
        config: Head and temperature.
    """

    needs_whole_batch = True

    def __init__(self, backbone: nn.Module, config: SimCLRConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = backbone
        self.projector = build_simclr_projector(
            feature_dim(backbone), config.hidden_dim, config.output_dim
        )

    def forward(self, views: list[Tensor], scalars: Mapping[str, Scalar]) -> StepOutput:
        """Compute NT-Xent, Eq. 1, on ``[v, v']``."""
        v, v_prime = views
        z, z_prime = self._project(v), self._project(v_prime)  # (N, D) each
        first = rank() * len(z)
        loss = nt_xent(
            z,
            z_prime,
            gather_with_gradient(z),  # (N * devices, D)
            gather_with_gradient(z_prime),
            first,
            self.config.temperature,
        )
        return StepOutput(loss, {"projection_std": projection_std(z)})

    def _project(self, view: Tensor) -> Tensor:
        projections: Tensor = self.projector(self.backbone(view))
        return projections
