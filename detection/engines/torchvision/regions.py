"""Train on proposed regions and detect among them, whatever their features are.

He et al. 2017 (Mask R-CNN), Section 3. Classes count from 1; 0 is the background.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.detection._utils import BalancedPositiveNegativeSampler, BoxCoder
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
from torchvision.models.detection.mask_rcnn import MaskRCNNPredictor
from torchvision.ops import box_iou

from detection.engines.torchvision.boxes import Suppress, clip_to_image, suppress
from detection.engines.torchvision.losses import box_losses, mask_loss, of_class
from detection.engines.torchvision.mask_targets import mask_targets
from detection.engines.torchvision.matching import ObjectMatcher, of_object
from detection.engines.torchvision.pooling import NUM_LEVELS
from detection.recipe.architecture import SamplingConfig
from rsa_pretrain.plumbing.device import to_device

OBJECT_IOU = 0.5
OBJECT_FRACTION = 0.25
BOX_WEIGHTS = (10.0, 10.0, 5.0, 5.0)
SCORE_THRESHOLD = 0.05
NMS_IOU = 0.5

ImageTarget = dict[str, Any]
Known = tuple[Tensor, Tensor]
Detections = dict[str, Tensor]


class _Sample(NamedTuple):
    """Regions of one image that are trained on."""

    boxes: Tensor
    """(S, 4)."""
    labels: Tensor
    """0 for background, (S,)."""
    matches: Tensor
    """Index of the object each overlaps most; negative for background, (S,)."""


class RegionHeads(nn.Module, ABC):
    """Box head, and mask head where the model has one, over features that a subclass computes.

    Args:
        has_mask_head: Whether masks are predicted.
        sampling: Numbers of regions trained on and of detections kept.
    """

    box_predictor: FastRCNNPredictor
    """Vectors of ``box_vectors`` to class logits and offsets."""
    mask_predictor: MaskRCNNPredictor
    """Features of ``mask_features`` to every class's mask, where masks are predicted."""
    MASK_SIDE: ClassVar[int]
    """Height and width of the masks."""

    def __init__(self, has_mask_head: bool, sampling: SamplingConfig) -> None:
        super().__init__()
        self.has_mask_head = has_mask_head
        self.suppress: Suppress = suppress
        self.detections_per_image = sampling.detections_per_image
        self._coder = BoxCoder(BOX_WEIGHTS)
        self._matcher = ObjectMatcher(OBJECT_IOU, OBJECT_IOU, allow_low_quality_matches=False)
        self._sampler = BalancedPositiveNegativeSampler(sampling.rois_per_image, OBJECT_FRACTION)

    @abstractmethod
    def box_features(self, maps: Sequence[Tensor], boxes: Sequence[Tensor]) -> Tensor:
        """Compute the regions' features, (R, C, S, S), from float32 maps."""

    @abstractmethod
    def box_vectors(self, features: Tensor) -> Tensor:
        """Turn regions' features into the vectors that their classes are predicted from, (R, V)."""

    @abstractmethod
    def mask_features(
        self, maps: Sequence[Tensor], boxes: Sequence[Tensor], known: Known | None
    ) -> Tensor:
        """Compute what masks are predicted from, (R, C, S, S).

        Args:
            maps: As for ``box_features``.
            boxes: Of each image, (R_i, 4).
            known: ``box_features`` of more boxes and the rows of these, where there are any.
        """

    def forward(
        self,
        features: dict[str, Tensor],
        proposals: Sequence[Tensor],
        image_sizes: Sequence[tuple[int, int]],
        targets: Sequence[ImageTarget] | None = None,
        score_threshold: float | Tensor = SCORE_THRESHOLD,
    ) -> tuple[list[Detections], dict[str, Tensor]]:
        """Compute the losses in training, detections otherwise.

        Args:
            features: Maps by rising stride; of a pyramid, regions are read from the first four.
            proposals: Each image's boxes, (K, 4).
            image_sizes: Height and width of each image.
            targets: ``boxes``, ``labels`` and ``outlines`` of each image, in training.
            score_threshold: Detections score above it.

        Returns:
            Each image's ``boxes``, ``labels``, ``scores`` and, with a mask head, ``masks``
            (D, M, M), best first; and the losses. One of the two is empty.
        """
        # Autocast covers RoIAlign only in part; compute in float32, as in detectron2. All
        # poolers read the same copy.
        maps = [
            level.to(torch.float32, memory_format=torch.contiguous_format)
            for level in list(features.values())[:NUM_LEVELS]
        ]
        if self.training:
            assert targets is not None, "training needs targets"
            return [], self._losses(maps, proposals, targets)
        logits, deltas = self._predict_boxes(self.box_features(maps, proposals))
        counts = [boxes.shape[0] for boxes in proposals]
        per_image = (torch.split(logits, counts), torch.split(deltas, counts))
        parts = zip(*per_image, proposals, image_sizes, strict=True)
        found = [self._detect(*part, score_threshold) for part in parts]
        if not self.has_mask_head:
            return found, {}
        logits = self._predict_masks(maps, [entry["boxes"] for entry in found])
        own = of_class(logits, torch.cat([entry["labels"] for entry in found]))
        counts = [entry["boxes"].shape[0] for entry in found]
        for entry, part in zip(found, torch.split(own.sigmoid(), counts), strict=True):
            entry["masks"] = part
        return found, {}

    def _predict_boxes(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return class logits (R, 1 + C) and offsets (R, 4 * (1 + C))."""
        logits, deltas = self.box_predictor(self.box_vectors(features))
        return logits.float(), deltas.float()

    def _predict_masks(
        self, maps: Sequence[Tensor], boxes: Sequence[Tensor], known: Known | None = None
    ) -> Tensor:
        """Return logits of every class's mask, (R, 1 + C, M, M)."""
        logits: Tensor = self.mask_predictor(self.mask_features(maps, boxes, known))
        return logits.float()

    def _losses(
        self, maps: Sequence[Tensor], proposals: Sequence[Tensor], targets: Sequence[ImageTarget]
    ) -> dict[str, Tensor]:
        samples = [self._sample(*parts) for parts in zip(proposals, targets, strict=True)]
        labels = torch.cat([sample.labels for sample in samples])
        offsets = [
            self._coder.encode_single(
                of_object(target["boxes"], sample.matches, sample.boxes), sample.boxes
            )
            for sample, target in zip(samples, targets, strict=True)
        ]
        features = self.box_features(maps, [sample.boxes for sample in samples])
        losses = box_losses(*self._predict_boxes(features), labels, torch.cat(offsets))
        if self.has_mask_head:
            losses["loss_mask"] = self._mask_loss(maps, features, samples, targets)
        return losses

    def _mask_loss(
        self,
        maps: Sequence[Tensor],
        features: Tensor,
        samples: Sequence[_Sample],
        targets: Sequence[ImageTarget],
    ) -> Tensor:
        """Compare the masks of the sampled objects, except of those annotated with only a box."""
        labels = torch.cat([sample.labels for sample in samples])
        objects = torch.where(labels > 0)[0]
        matches = torch.cat([sample.matches for sample in samples])
        images = torch.cat(
            [torch.full_like(sample.matches, number) for number, sample in enumerate(samples)]
        )
        labels, boxes = labels[objects], torch.cat([sample.boxes for sample in samples])[objects]
        # The only values that drawing needs on the host.
        image_of, match_of = torch.stack([images, matches])[:, objects].tolist()
        counts = [image_of.count(number) for number in range(len(samples))]
        logits = self._predict_masks(maps, torch.split(boxes, counts), (features, objects))
        outlines = [
            targets[image]["outlines"][match]
            for image, match in zip(image_of, match_of, strict=True)
        ]
        drawn = [outline for outline in outlines if outline is not None]
        if len(drawn) < len(outlines):
            rows = [row for row, outline in enumerate(outlines) if outline is not None]
            known = to_device(torch.tensor(rows, dtype=torch.int64), labels.device)
            logits, boxes, labels = logits[known], boxes[known], labels[known]
        return mask_loss(logits, labels, mask_targets(drawn, boxes, logits.shape[-1]))

    def _sample(self, proposals: Tensor, target: ImageTarget) -> _Sample:
        """Choose regions, a quarter of them objects where there are enough.

        The objects' own boxes are among the candidates, so that the mask head never lacks one.
        """
        candidates = torch.cat([proposals, target["boxes"]])
        matches = self._matcher(box_iou(target["boxes"], candidates))
        labels = of_object(target["labels"], matches, torch.zeros_like(matches))
        ((positive,), (negative,)) = self._sampler([labels])
        chosen = torch.where(positive.bool() | negative.bool())[0]
        return _Sample(candidates[chosen], labels[chosen], matches[chosen])

    def _detect(
        self,
        logits: Tensor,
        deltas: Tensor,
        proposals: Tensor,
        size: tuple[int, int],
        score_threshold: float | Tensor = SCORE_THRESHOLD,
    ) -> Detections:
        """Keep an image's best boxes, suppressing those of the same class that overlap."""
        scores = functional.softmax(logits, dim=1)
        boxes = self._coder.decode_single(deltas, proposals).reshape(*scores.shape, 4)
        usable = torch.where(boxes.flatten(1).isfinite().all(1) & scores.isfinite().all(1))[0]
        scores, boxes = scores[usable, 1:], clip_to_image(boxes[usable, 1:], size)
        rows, columns = torch.where(scores > score_threshold)
        scores, boxes, labels = scores[rows, columns], boxes[rows, columns], columns + 1
        kept = self.suppress(boxes, scores, labels, NMS_IOU, self.detections_per_image)
        return {"boxes": boxes[kept], "labels": labels[kept], "scores": scores[kept]}
