"""Supervised pretraining with cross-entropy, the reference for the "supervised" rows."""

from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor, nn

from rsa_pretrain.components.backbone import feature_dim
from rsa_pretrain.components.collapse import projection_std
from rsa_pretrain.methods.base import Method, Scalar, StepOutput
from rsa_pretrain.methods.settings import SupervisedConfig


class Supervised(Method):
    """A linear classifier on the backbone, both trained on weak views (crop and flip).

    Args:
        backbone: From (N, 3, H, W) to (N, F).
        config: Number of classes.
    """

    needs_labels = True

    def __init__(self, backbone: nn.Module, config: SupervisedConfig) -> None:
        super().__init__()
        self.backbone = backbone
        self.classifier = nn.Linear(feature_dim(backbone), config.num_classes)

    def forward(  # type: ignore[override]  # the trainer gives labels where needs_labels is set
        self, views: list[Tensor], scalars: Mapping[str, Scalar], labels: Tensor
    ) -> StepOutput:
        """Compute the cross-entropy of ``[v_w]`` with class indices ``labels``, (N,)."""
        (v_w,) = views
        features = self.backbone(v_w)  # (N, F)
        logits = self.classifier(features).float()  # (N, C)
        loss = F.cross_entropy(logits, labels)
        top1 = 100 * (logits.argmax(dim=1) == labels).float().mean()
        return StepOutput(loss, {"train_top1": top1, "projection_std": projection_std(features)})
