"""MoCo v2: Improved Baselines with Momentum Contrastive Learning (Chen et al. 2020)."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from rsa_pretrain.components.backbone import feature_dim
from rsa_pretrain.components.collapse import projection_std
from rsa_pretrain.components.heads import build_plain_mlp
from rsa_pretrain.components.losses import info_nce
from rsa_pretrain.components.moco_queue import MoCoQueue
from rsa_pretrain.components.shuffled_bn import shuffled_over_ranks
from rsa_pretrain.components.target import TargetUpdate, make_target
from rsa_pretrain.methods.base import Method, Scalar, StepOutput
from rsa_pretrain.methods.settings import MoCoV2Config
from rsa_pretrain.plumbing.distributed import gather


class MoCoV2(Method):
    """Contrasts queries with the other view's keys and a queue of earlier keys, symmetrised.

    The loss is the sum over both directions, as in the comparison of SimSiam's Table 4, whose
    setting the RSA paper uses. Keys enter the queue after the optimizer step.

    Args:
        backbone: f_q, from (N, 3, H, W) to (N, F).
        config: Head, temperature, queue and momentum.
    """

    def __init__(self, backbone: nn.Module, config: MoCoV2Config) -> None:
        super().__init__()
        self.config = config
        self.backbone = backbone
        self.projector = build_plain_mlp(
            feature_dim(backbone), config.hidden_dim, config.output_dim
        )
        self.key_backbone = make_target(self.backbone)
        self.key_projector = make_target(self.projector)
        self.queue = MoCoQueue(config.queue_size, config.output_dim)
        self._update_keys = TargetUpdate(
            (self.key_backbone, self.backbone), (self.key_projector, self.projector)
        )

    def forward(self, views: list[Tensor], scalars: Mapping[str, Scalar]) -> StepOutput:
        """Compute InfoNCE (MoCo Eq. 1) in both directions on ``[v, v']``."""
        v, v_prime = views
        q, q_prime = self._query(v), self._query(v_prime)  # (N, D) each
        with torch.no_grad():
            k, k_prime = self._key(v), self._key(v_prime)  # (N, D) each
        queue, temperature = self.queue.keys, self.config.temperature
        loss = info_nce(q, k_prime, queue, temperature) + info_nce(q_prime, k, queue, temperature)
        return StepOutput(loss, {"projection_std": projection_std(q)}, kept=(k, k_prime))

    def after_optimizer_step(self, progress: float, outputs: Sequence[StepOutput]) -> None:
        """Update the key network (MoCo Eq. 2) and enqueue the step's keys of all devices."""
        self._update_keys(self.config.ema_momentum)
        for keys in zip(*(output.kept for output in outputs), strict=True):
            self.queue.enqueue(gather(torch.cat(keys)))

    def _query(self, view: Tensor) -> Tensor:
        projections: Tensor = self.projector(self.backbone(view))
        return projections

    def _key(self, view: Tensor) -> Tensor:
        if self.config.shuffle_bn:
            return shuffled_over_ranks(self._project_key, view)
        return self._project_key(view)

    def _project_key(self, view: Tensor) -> Tensor:
        projections: Tensor = self.key_projector(self.key_backbone(view))
        return projections
