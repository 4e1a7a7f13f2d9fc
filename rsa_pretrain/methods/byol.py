"""BYOL: Bootstrap Your Own Latent (Grill et al., NeurIPS 2020)."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from rsa_pretrain.components.backbone import feature_dim
from rsa_pretrain.components.collapse import projection_std
from rsa_pretrain.components.heads import build_mlp
from rsa_pretrain.components.losses import normalised_mse
from rsa_pretrain.components.target import TargetUpdate, make_target
from rsa_pretrain.methods.base import Method, Scalar, StepOutput
from rsa_pretrain.methods.settings import BYOLConfig


class BYOL(Method):
    """Passes both views through the online network and its EMA target; each predicts the other.

    The views are two aggressive ones (AA), or one aggressive and one weak (AW): RSA, Table 1.

    Args:
        backbone: f_theta, from (N, 3, H, W) to (N, F).
        config: Views, heads and momentum.
    """

    def __init__(self, backbone: nn.Module, config: BYOLConfig) -> None:
        super().__init__()
        self.config = config
        width = feature_dim(backbone)
        self.backbone = backbone
        self.projector = build_mlp(width, config.hidden_dim, config.output_dim)
        self.predictor = build_mlp(config.output_dim, config.hidden_dim, config.output_dim)
        self.target_backbone = make_target(self.backbone)
        self.target_projector = make_target(self.projector)
        self._update_target = TargetUpdate(
            (self.target_backbone, self.backbone), (self.target_projector, self.projector)
        )

    def forward(self, views: list[Tensor], scalars: Mapping[str, Scalar]) -> StepOutput:
        """Compute the symmetrised loss, Section 3.1, on ``[v, v']``."""
        v, v_prime = views
        y, y_prime = self._project(v), self._project(v_prime)  # (N, D) each
        q, q_prime = self.predictor(y), self.predictor(y_prime)  # (N, D) each
        with torch.no_grad():
            z, z_prime = self._project_target(v), self._project_target(v_prime)  # (N, D) each
        loss = normalised_mse(q, z_prime) + normalised_mse(q_prime, z)
        return StepOutput(loss, {"projection_std": projection_std(y)})

    def after_optimizer_step(self, progress: float, outputs: Sequence[StepOutput]) -> None:
        """Update the target with the online network, Eq. 1."""
        self._update_target(self.config.scheduled(progress)["ema_momentum"])

    def _project(self, view: Tensor) -> Tensor:
        projections: Tensor = self.projector(self.backbone(view))
        return projections

    def _project_target(self, view: Tensor) -> Tensor:
        projections: Tensor = self.target_projector(self.target_backbone(view))
        return projections
