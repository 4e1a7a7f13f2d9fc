"""RSA: Reducing Semantic shift from Aggressive augmentations (Bai et al., NeurIPS 2022)."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from rsa_pretrain.components.backbone import feature_dim
from rsa_pretrain.components.collapse import projection_std
from rsa_pretrain.components.heads import build_mlp
from rsa_pretrain.components.losses import rsa_loss
from rsa_pretrain.components.target import TargetUpdate, make_target
from rsa_pretrain.methods.base import Method, Scalar, StepOutput
from rsa_pretrain.methods.settings import RSAConfig


class RSA(Method):
    """Algorithm 1: an online network sees aggressive views, its EMA target the weak ones.

    Where the paper is silent its release is followed: each view has a separate forward pass, so
    BatchNorm statistics are per view; the target stays in train mode.

    Args:
        backbone: f_theta, from (N, 3, H, W) to (N, F).
        config: Heads, momentum and beta.
    """

    def __init__(self, backbone: nn.Module, config: RSAConfig) -> None:
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

    def scalars(self, progress: float) -> dict[str, float]:
        """Return beta."""
        return {"beta": self.config.scheduled(progress)["beta"]}

    def forward(self, views: list[Tensor], scalars: Mapping[str, Scalar]) -> StepOutput:
        """Compute Eq. 5 on ``[v_a, v_a', v_w, v_w']``."""
        v_a, v_a_prime, v_w, v_w_prime = views
        y_a, y_a_prime = self._forward_views(self._project, v_a, v_a_prime)  # (N, D) each
        z_a, z_a_prime = self._forward_views(self.predictor, y_a, y_a_prime)  # (N, D) each
        with torch.no_grad():
            # (N, D) each
            z_w, z_w_prime = self._forward_views(self._project_target, v_w, v_w_prime)
        loss = rsa_loss(z_a, z_a_prime, z_w, z_w_prime, scalars["beta"])
        return StepOutput(
            loss.total,
            {
                "loss_weak": loss.weak.detach(),
                "loss_aggressive": loss.aggressive.detach(),
                "projection_std": projection_std(y_a),
            },
        )

    def after_optimizer_step(self, progress: float, outputs: Sequence[StepOutput]) -> None:
        """Update the target with the online network (BYOL Eq. 1)."""
        self._update_target(self.config.scheduled(progress)["ema_momentum"])

    def _project(self, view: Tensor) -> Tensor:
        projections: Tensor = self.projector(self.backbone(view))
        return projections

    def _project_target(self, view: Tensor) -> Tensor:
        projections: Tensor = self.target_projector(self.target_backbone(view))
        return projections

    def _forward_views(
        self, network: Callable[[Tensor], Tensor], view: Tensor, view_prime: Tensor
    ) -> tuple[Tensor, Tensor]:
        if not self.config.batch_views:
            return network(view), network(view_prime)
        both = network(torch.cat([view, view_prime]))
        return both[: len(view)], both[len(view) :]
