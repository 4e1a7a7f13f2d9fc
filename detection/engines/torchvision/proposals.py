"""Propose boxes that may contain an object: the region proposal network.

Ren et al. 2015 (Faster R-CNN), Section 3.1, on one map or more: the best boxes of each map,
filtered by non-maximum suppression within the map, then the best of all maps of an image.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchvision.models.detection._utils import BalancedPositiveNegativeSampler, BoxCoder
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import RPNHead
from torchvision.ops import box_iou

from detection.engines.torchvision.anchors import AnchorLayout
from detection.engines.torchvision.boxes import Suppress, at_most, clip_to_image, suppress
from detection.engines.torchvision.losses import proposal_losses
from detection.engines.torchvision.matching import ObjectMatcher, of_object
from detection.recipe.architecture import PRE_NMS_TOP_K, ModelConfig, SamplingConfig

PROPOSAL_NMS_IOU = 0.7
POSITIVE_IOU, NEGATIVE_IOU = 0.7, 0.3
POSITIVE_FRACTION = 0.5

Targets = Sequence[dict[str, Tensor]]


class ProposalNetwork(nn.Module):
    """Scores and shifts anchors, and keeps the best.

    Args:
        channels: Width of the maps.
        model: The maps, and the boxes it starts from.
        sampling: Numbers of anchors trained on and of boxes kept.
    """

    def __init__(self, channels: int, model: ModelConfig, sampling: SamplingConfig) -> None:
        super().__init__()
        self.head = RPNHead(channels, model.anchors.num_per_position(model.features))
        self.anchors = AnchorLayout(model.anchors, model.features)
        self.suppress: Suppress = suppress
        self._before_nms = PRE_NMS_TOP_K[model.features]
        self._kept = sampling.num_proposals
        self._anchors_per_image = sampling.anchors_per_image
        self._coder = BoxCoder(weights=(1.0, 1.0, 1.0, 1.0))
        self._matcher = ObjectMatcher(POSITIVE_IOU, NEGATIVE_IOU, allow_low_quality_matches=True)
        self._sampler = BalancedPositiveNegativeSampler(
            sampling.anchors_per_image, POSITIVE_FRACTION
        )

    def forward(
        self, images: ImageList, features: dict[str, Tensor], targets: Targets | None = None
    ) -> tuple[list[Tensor], dict[str, Tensor]]:
        """Propose boxes.

        Args:
            images: Has each image's own size, to which boxes are clipped.
            features: Maps, (N, C, H, W), by rising stride.
            targets: ``boxes`` of each image, in training.

        Returns:
            Each image's proposals, (K, 4), best first and without gradient, and in training the
            losses.
        """
        maps = list(features.values())
        logits, deltas = self.head(maps)
        # Cells row by row, then anchors of a cell: the order of AnchorLayout.
        flat_logits = [level.permute(0, 2, 3, 1).flatten(1).float() for level in logits]
        flat_deltas = [_per_anchor(level).float() for level in deltas]
        shapes = [(part.shape[2], part.shape[3]) for part in maps]
        anchors = self.anchors(shapes)
        losses: dict[str, Tensor] = {}
        if self.training:
            assert targets is not None, "training needs targets"
            losses = self._losses(
                torch.cat(flat_logits, 1), torch.cat(flat_deltas, 1), torch.cat(anchors), targets
            )
        with torch.no_grad():
            proposals = self._select(flat_logits, flat_deltas, anchors, images.image_sizes)
        return proposals, losses

    def _losses(
        self, logits: Tensor, deltas: Tensor, anchors: Tensor, targets: Targets
    ) -> dict[str, Tensor]:
        """Sample anchors of every image and compute losses; logits (N, A), deltas (N, A, 4)."""
        labels, offsets = [], []
        for target in targets:
            matches = self._matcher(box_iou(target["boxes"], anchors))
            # Objects 1, background 0, neither -1.
            labels.append(
                (matches >= 0).long() - (matches == ObjectMatcher.BETWEEN_THRESHOLDS).long()
            )
            matched = of_object(target["boxes"], matches, anchors)
            offsets.append(self._coder.encode_single(matched, anchors))
        positive, negative = (torch.stack(masks).bool() for masks in self._sampler(labels))
        sampled = torch.where(positive | negative)
        return proposal_losses(
            logits[sampled],
            deltas[sampled],
            torch.stack(labels)[sampled],
            torch.stack(offsets)[sampled],
            self._anchors_per_image * len(labels),
        )

    def _select(
        self,
        logits: Sequence[Tensor],
        deltas: Sequence[Tensor],
        anchors: Sequence[Tensor],
        sizes: Sequence[tuple[int, int]],
    ) -> list[Tensor]:
        """Keep the best boxes of every image; logits (N, A_level) and deltas (N, A_level, 4)."""
        best = self._before_nms.of(self.training)
        scores, boxes, levels = [], [], []
        for level, level_anchors in enumerate(anchors):
            top, chosen = logits[level].topk(at_most(best, level_anchors.shape[0]), dim=1)
            moves = deltas[level].gather(1, chosen[..., None].expand(-1, -1, 4)).flatten(0, 1)
            decoded = self._coder.decode_single(moves, level_anchors[chosen].flatten(0, 1))
            scores.append(top)
            boxes.append(decoded.reshape(*chosen.shape, 4))
            levels.append(torch.full_like(chosen[0], level))
        all_levels = torch.cat(levels)
        return [
            self._thin(image_boxes, image_scores, all_levels, size)
            for image_boxes, image_scores, size in zip(
                torch.cat(boxes, 1), torch.cat(scores, 1), sizes, strict=True
            )
        ]

    def _thin(self, boxes: Tensor, scores: Tensor, levels: Tensor, size: tuple[int, int]) -> Tensor:
        boxes = clip_to_image(boxes, size)
        usable = torch.where(boxes.isfinite().all(1) & scores.isfinite() & has_area(boxes))[0]
        boxes, scores, levels = boxes[usable], scores[usable], levels[usable]
        most = self._kept.of(self.training)
        return boxes[self.suppress(boxes, scores, levels, PROPOSAL_NMS_IOU, most)]


def has_area(boxes: Tensor) -> Tensor:
    """Return whether both sides of each box, (N, 4), are above 0."""
    return (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])


def _per_anchor(deltas: Tensor) -> Tensor:
    """Turn (N, A * 4, H, W) into (N, H * W * A, 4)."""
    images, channels, height, width = deltas.shape
    split = deltas.view(images, channels // 4, 4, height, width)
    return split.permute(0, 3, 4, 1, 2).reshape(images, -1, 4)
