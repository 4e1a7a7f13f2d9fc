"""MoCo v2: Improved Baselines with Momentum Contrastive Learning (Chen et al. 2020)."""

import torch
from torch import Tensor, nn

from rsa_pretrain.components.backbone import feature_dim
from rsa_pretrain.components.collapse import projection_std
from rsa_pretrain.components.heads import build_plain_mlp
from rsa_pretrain.components.losses import info_nce
from rsa_pretrain.components.moco_queue import MoCoQueue
from rsa_pretrain.components.shuffled_bn import shuffled_over_ranks
from rsa_pretrain.components.target import make_target, update_target
from rsa_pretrain.methods.base import StepOutput
from rsa_pretrain.methods.settings import MoCoV2Config
from rsa_pretrain.plumbing.distributed import gather


class MoCoV2(nn.Module):
    """Contrasts queries with the other view's keys and a queue of earlier keys, symmetrised.

    The loss is the sum over both directions, as in the comparison of SimSiam's Table 4, whose
    setting the RSA paper uses. Keys enter the queue after the optimizer step.

    Args:
        backbone: f_q, from (N, 3, H, W) to (N, F).
        config: Head, temperature, queue and momentum.
    """

    needs_labels = False
    needs_whole_batch = False

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
        self._new_keys: list[Tensor] = []
        self._new_keys_prime: list[Tensor] = []

    def forward(self, views: list[Tensor], progress: float) -> StepOutput:
        """Compute InfoNCE (MoCo Eq. 1) in both directions on ``[v, v']``."""
        v, v_prime = views
        q, q_prime = self._query(v), self._query(v_prime)  # (N, D) each
        with torch.no_grad():
            k, k_prime = self._key(v), self._key(v_prime)  # (N, D) each
        queue, temperature = self.queue.keys, self.config.temperature
        loss = info_nce(q, k_prime, queue, temperature) + info_nce(q_prime, k, queue, temperature)
        self._new_keys.append(k)
        self._new_keys_prime.append(k_prime)
        return StepOutput(
            loss, {"ema_momentum": self.config.ema_momentum, "projection_std": projection_std(q)}
        )

    def after_optimizer_step(self, progress: float) -> None:
        """Update the key network (MoCo Eq. 2) and enqueue the step's keys of all devices."""
        update_target(self.key_backbone, self.backbone, self.config.ema_momentum)
        update_target(self.key_projector, self.projector, self.config.ema_momentum)
        for keys in (self._new_keys, self._new_keys_prime):
            self.queue.enqueue(gather(torch.cat(keys)))
            keys.clear()

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
