"""SimSiam: Exploring Simple Siamese Representation Learning (Chen and He, CVPR 2021)."""

from collections.abc import Mapping

from torch import Tensor, nn

from rsa_pretrain.components.backbone import feature_dim
from rsa_pretrain.components.collapse import projection_std
from rsa_pretrain.components.heads import build_simsiam_predictor, build_simsiam_projector
from rsa_pretrain.components.losses import negative_cosine
from rsa_pretrain.methods.base import Method, Scalar, StepOutput
from rsa_pretrain.methods.settings import SimSiamConfig


class SimSiam(Method):
    """One network sees both views; each predicts the other's projection, without its gradient.

    Args:
        backbone: f, from (N, 3, H, W) to (N, F).
        config: Heads.
    """

    def __init__(self, backbone: nn.Module, config: SimSiamConfig) -> None:
        super().__init__()
        self.backbone = backbone
        self.projector = build_simsiam_projector(
            feature_dim(backbone), config.projector_dim, config.projector_layers
        )
        self.predictor = build_simsiam_predictor(config.projector_dim, config.predictor_hidden_dim)

    def forward(self, views: list[Tensor], scalars: Mapping[str, Scalar]) -> StepOutput:
        """Compute Eq. 4 on ``[v, v']``."""
        v, v_prime = views
        z, z_prime = self._project(v), self._project(v_prime)  # (N, D) each
        p, p_prime = self.predictor(z), self.predictor(z_prime)  # (N, D) each
        loss = negative_cosine(p, z_prime) / 2 + negative_cosine(p_prime, z) / 2
        return StepOutput(loss, {"projection_std": projection_std(z)})

    def _project(self, view: Tensor) -> Tensor:
        projections: Tensor = self.projector(self.backbone(view))
        return projections
