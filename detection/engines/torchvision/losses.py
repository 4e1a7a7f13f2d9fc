"""Compute Mask R-CNN's losses with detectron2's normalisation, as pure functions.

He et al. 2017 (Mask R-CNN), Section 3; Ren et al. 2015 (Faster R-CNN), Eq. (1). The box terms are
the absolute difference, which is smooth L1 with beta 0.
"""

import torch
from torch import Tensor
from torch.nn import functional


def proposal_losses(
    logits: Tensor, deltas: Tensor, labels: Tensor, targets: Tensor, num_anchors: int
) -> dict[str, Tensor]:
    """Return ``loss_rpn_cls`` and ``loss_rpn_loc`` of the sampled anchors of a batch.

    Args:
        logits: Objectness of the sampled anchors, (S,).
        deltas: Their predicted offsets, (S, 4).
        labels: 1 for objects, 0 for background, (S,).
        targets: Offsets to the matched objects, (S, 4); read where the label is 1.
        num_anchors: Divisor of the sums: anchors allowed per image times images, even if fewer
            could be sampled.
    """
    positive = torch.where(labels == 1)[0]
    objectness = functional.binary_cross_entropy_with_logits(
        logits, labels.to(logits.dtype), reduction="sum"
    )
    offsets = functional.l1_loss(deltas[positive], targets[positive], reduction="sum")
    return {"loss_rpn_cls": objectness / num_anchors, "loss_rpn_loc": offsets / num_anchors}


def box_losses(
    logits: Tensor, deltas: Tensor, labels: Tensor, targets: Tensor
) -> dict[str, Tensor]:
    """Return ``loss_cls`` and ``loss_box_reg`` of the sampled regions of a batch.

    Args:
        logits: (R, 1 + C), the background first.
        deltas: Offsets predicted for each class, (R, 4 * (1 + C)).
        labels: 0 for background, (R,).
        targets: Offsets to the matched objects, (R, 4); read where the label is above 0.
    """
    objects = torch.where(labels > 0)[0]
    moves = of_class(deltas.reshape(len(labels), deltas.shape[1] // 4, 4)[objects], labels[objects])
    offsets = functional.l1_loss(moves, targets[objects], reduction="sum")
    # Without any region the mean is undefined; 0 keeps every parameter in the graph.
    classes = functional.cross_entropy(logits, labels) if len(labels) else logits.sum() * 0
    return {
        "loss_cls": classes,
        # Divided by all regions: every region then weighs the same in both terms.
        "loss_box_reg": offsets / max(len(labels), 1),
    }


def mask_loss(logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    """Return the mean binary cross-entropy of each object's own class's mask.

    Args:
        logits: (F, 1 + C, M, M), the background first.
        labels: From 1, (F,).
        targets: True inside the object, (F, M, M).
    """
    if len(labels) == 0:
        return logits.sum() * 0  # keeps every parameter in the graph, which DDP needs
    own = of_class(logits, labels)
    return functional.binary_cross_entropy_with_logits(own, targets.to(own.dtype))


def of_class(values: Tensor, labels: Tensor) -> Tensor:
    """Select each row's entry for its label, (N, C, …) to (N, …)."""
    return values[torch.arange(labels.shape[0], device=labels.device), labels]
