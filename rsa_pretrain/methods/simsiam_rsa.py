"""SimSiam + RSA (Bai et al., NeurIPS 2022, Section 4.7)."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from rsa_pretrain.components.backbone import feature_dim
from rsa_pretrain.components.collapse import projection_std
from rsa_pretrain.components.heads import build_simsiam_predictor, build_simsiam_projector
from rsa_pretrain.components.losses import negative_product, rsa_loss
from rsa_pretrain.methods.base import Method, Scalar, StepOutput
from rsa_pretrain.methods.settings import SimSiamRSAConfig


class SimSiamRSA(Method):
    """RSA's views, pairs and weights over one network without a momentum target.

    Aggressive views are predicted with gradient; weak views are projected by the same network
    without one. Eq. 5 is used unchanged, the sum over both directions, with the negative
    cosine instead of the squared distance (SimSiam's own Eq. 4 halves that sum).

    Args:
        backbone: f, from (N, 3, H, W) to (N, F).
        config: Heads and beta.
    """

    def __init__(self, backbone: nn.Module, config: SimSiamRSAConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = backbone
        self.projector = build_simsiam_projector(
            feature_dim(backbone), config.projector_dim, config.projector_layers
        )
        self.predictor = build_simsiam_predictor(config.projector_dim, config.predictor_hidden_dim)

    def scalars(self, progress: float) -> dict[str, float]:
        """Return beta."""
        return self.config.scheduled(progress)

    def forward(self, views: list[Tensor], scalars: Mapping[str, Scalar]) -> StepOutput:
        """Compute Eq. 5 with negative cosines on ``[v_a, v_a', v_w, v_w']``."""
        v_a, v_a_prime, v_w, v_w_prime = views
        y_a, y_a_prime = self._project(v_a), self._project(v_a_prime)  # (N, D) each
        z_a, z_a_prime = self.predictor(y_a), self.predictor(y_a_prime)  # (N, D) each
        with torch.no_grad():
            z_w, z_w_prime = self._project(v_w), self._project(v_w_prime)  # (N, D) each
        loss = rsa_loss(z_a, z_a_prime, z_w, z_w_prime, scalars["beta"], negative_product)
        return StepOutput(
            loss.total,
            {
                "loss_weak": loss.weak.detach(),
                "loss_aggressive": loss.aggressive.detach(),
                "projection_std": projection_std(y_a),
            },
        )

    def _project(self, view: Tensor) -> Tensor:
        projections: Tensor = self.projector(self.backbone(view))
        return projections
