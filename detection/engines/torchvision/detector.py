"""Build detectron2's Mask R-CNN, with a feature pyramid or on C4, from torchvision's parts.

It takes a pretrained trunk. Parameters have torchvision's names: ``backbone.body`` is the trunk,
``backbone.fpn`` the pyramid, ``rpn.head``, ``roi_heads.box_head``, … the heads. On C4 the trunk's
last stage is ``roi_heads.layer4``.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import FrozenBatchNorm2d

from detection.coco.masks import Size
from detection.engines.torchvision.initialisation import initialise
from detection.engines.torchvision.proposals import ProposalNetwork
from detection.engines.torchvision.pyramid_heads import PyramidHeads
from detection.engines.torchvision.regions import (
    SCORE_THRESHOLD,
    Detections,
    ImageTarget,
    RegionHeads,
)
from detection.engines.torchvision.stage_heads import StageHeads
from detection.exchange.trunk_names import BATCH_COUNT, trunk_tensors
from detection.feeding.samples import TestSample, TrainingSample
from detection.job.trunk import Trunk, check_arrived
from detection.recipe.architecture import ModelConfig, RegionMaps, SamplingConfig
from detection.recipe.recipe import Recipe
from rsa_pretrain.components.backbone import build_backbone, feature_dim
from rsa_pretrain.plumbing.device import to_device
from rsa_pretrain.weights.foreign.layout import Pixels

PYRAMID_CHANNELS = 256
_STAGES = (("conv1", "bn1"), ("layer1",), ("layer2",), ("layer3",), ("layer4",))
_NORMS: dict[str, type[nn.Module] | None] = {
    "none": None,
    "BN": nn.BatchNorm2d,
    "SyncBN": nn.SyncBatchNorm,
}
# Sides are padded to multiples: a pyramid adds maps, which must fit; a single map need not.
_SIZE_DIVISORS: Mapping[RegionMaps, int] = {"FPN": 32, "C4": 1}


class MaskRCNN(nn.Module):
    """The detector: samples to losses in training, samples to detections otherwise.

    Args:
        backbone: Images to maps, by rising stride.
        rpn: Maps to boxes.
        roi_heads: Maps and boxes to classes, better boxes and masks.
        pixels: The input that the trunk expects.
        size_divisor: Sides of a batch are padded to multiples of this.
    """

    mean: Tensor
    """Mean of 8-bit RGB pixels, (3, 1, 1)."""
    std: Tensor
    """Standard deviation, likewise."""

    def __init__(
        self,
        backbone: nn.Module,
        rpn: ProposalNetwork,
        roi_heads: RegionHeads,
        pixels: Pixels,
        size_divisor: int,
    ) -> None:
        super().__init__()
        self._size_divisor = size_divisor
        self.backbone = backbone
        self.rpn = rpn
        self.roi_heads = roi_heads
        # Not part of the state: they are in a checkpoint's metadata.
        for name, values in (("mean", pixels.mean), ("std", pixels.std)):
            scaled = torch.tensor([255 * value for value in values])[:, None, None]
            self.register_buffer(name, scaled, persistent=False)

    def forward(
        self,
        samples: Sequence[TrainingSample] | Sequence[TestSample],
        score_threshold: float | Tensor = SCORE_THRESHOLD,
    ) -> dict[str, Tensor] | list[Detections]:
        """Return the losses by detectron2's names, or each image's detections in its own pixels.

        Args:
            samples: Training or test samples, according to the mode.
            score_threshold: Detections score above it.
        """
        images = self.batched([sample.image for sample in samples])
        features = self.backbone(images.tensors)
        targets = self._targets([s for s in samples if isinstance(s, TrainingSample)]) or None
        proposals, proposal_losses = self.rpn(images, features, targets)
        found, region_losses = self.roi_heads(
            features, proposals, images.image_sizes, targets, score_threshold
        )
        return {**proposal_losses, **region_losses} if self.training else found

    def padded_size(self, sizes: Sequence[Size]) -> Size:
        """Return the common height and width to which images of these sizes are padded."""
        height, width = (
            (max(sides) + self._size_divisor - 1) // self._size_divisor * self._size_divisor
            for sides in zip(*sizes, strict=True)
        )
        return height, width

    def batched(self, images: Sequence[Tensor]) -> ImageList:
        """Normalise 8-bit images and pad them with zeros, at the right and the bottom.

        Images in page-locked memory are sent without waiting for the device.
        """
        device = self.mean.device
        sent = [image.to(device, non_blocking=True) for image in images]
        normalised = [(image - self.mean) / self.std for image in sent]
        sizes = [(image.shape[1], image.shape[2]) for image in normalised]
        height, width = self.padded_size(sizes)
        padded = [
            functional.pad(image, (0, width - image.shape[2], 0, height - image.shape[1]))
            for image in normalised
        ]
        return ImageList(torch.stack(padded), sizes)

    def _targets(self, samples: Sequence[TrainingSample]) -> list[ImageTarget]:
        """Send the boxes and labels of all images together."""
        if not samples:
            return []
        device, counts = self.mean.device, [len(sample.labels) for sample in samples]
        boxes, labels = (
            torch.split(to_device(torch.from_numpy(np.concatenate(parts)), device), counts)
            for parts in zip(*((sample.boxes, sample.labels) for sample in samples), strict=True)
        )
        return [
            {"boxes": own_boxes, "labels": own_labels, "outlines": sample.outlines}
            for own_boxes, own_labels, sample in zip(boxes, labels, samples, strict=True)
        ]


def place(detector: MaskRCNN, device: torch.device) -> MaskRCNN:
    """Move a detector to a device, weights laid out as its convolutions prefer.

    On a GPU that is channels last, which images and maps then follow. Values stay; on a CPU the
    layout stays too, as its convolutions would round differently.
    """
    detector.to(device)
    if device.type == "cuda":
        detector.to(memory_format=torch.channels_last)
    return detector


def build_detector(recipe: Recipe, trunk: Trunk, num_classes: int) -> MaskRCNN:
    """Build the detector, initialise its heads and load its trunk.

    Args:
        recipe: Architecture and sampling.
        trunk: Weights to start from.
        num_classes: Categories, without the background.

    Raises:
        RuntimeError: If a backbone tensor was not loaded.
    """
    body = build_backbone(trunk.backbone)
    body.load_state_dict(trunk.tensors, strict=True)
    pixels = Pixels(trunk.mean, trunk.std)
    detector = assemble(recipe.model, recipe.sampling, body, pixels, num_classes)
    check_trunk(detector, trunk)
    return detector


def assemble(
    model: ModelConfig,
    sampling: SamplingConfig,
    body: nn.Module,
    pixels: Pixels,
    num_classes: int,
) -> MaskRCNN:
    """Attach freshly initialised heads to a trunk.

    Args:
        model: Architecture.
        sampling: Numbers of anchors, proposals, regions and detections.
        body: The trunk; its norms are replaced according to the architecture.
        pixels: The input that the trunk expects.
        num_classes: Categories, without the background.
    """
    width = feature_dim(body)
    body = _with_norms(model, body)
    norm = _NORMS[model.head_norm]
    backbone: nn.Module
    heads: RegionHeads
    if model.features == "C4":
        stage_norm = None if norm is None else norm(width)
        backbone = StageMap(body)
        rpn = ProposalNetwork(width // 2, model, sampling)
        heads = StageHeads(
            body.get_submodule("layer4"), stage_norm, width, num_classes, model.mask_head, sampling
        )
    else:
        backbone = _build_pyramid(body, width, _NORMS[model.norm_of_pyramid])
        rpn = ProposalNetwork(PYRAMID_CHANNELS, model, sampling)
        heads = PyramidHeads(PYRAMID_CHANNELS, num_classes, model, sampling, norm)
    initialise(heads)
    return MaskRCNN(backbone, rpn, heads, pixels, _SIZE_DIVISORS[model.features])


def check_trunk(detector: nn.Module, trunk: Trunk) -> None:
    """Check bitwise that every trunk tensor inside the detector is the expected one.

    Raises:
        RuntimeError: If one is missing, unexpected or different.
    """
    found = trunk_tensors(detector.state_dict())
    # Frozen norms have no batch count.
    expected = {
        name: tensor
        for name, tensor in trunk.tensors.items()
        if name in found or not name.endswith(BATCH_COUNT)
    }
    check_arrived(found, expected)


class StageMap(nn.Module):
    """A trunk without its last stage: images to the map of res4 alone.

    Args:
        body: The trunk; its last stage is left to the heads.
    """

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = IntermediateLayerGetter(body, {"layer3": "0"})

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return the map under one key, (N, C, H / 16, W / 16)."""
        maps: dict[str, Tensor] = self.body(images)
        return maps


def _build_pyramid(body: nn.Module, width: int, norm: type[nn.Module] | None) -> BackboneWithFPN:
    return BackboneWithFPN(
        body,
        return_layers={f"layer{level + 1}": str(level) for level in range(4)},
        in_channels_list=[width // 8, width // 4, width // 2, width],
        out_channels=PYRAMID_CHANNELS,
        norm_layer=norm,
    )


def _with_norms(model: ModelConfig, body: nn.Module) -> nn.Module:
    """Freeze a trunk's stages and replace its norms as the architecture says."""
    if model.trunk_norm == "SyncBN":
        body = nn.SyncBatchNorm.convert_sync_batchnorm(body)  # type: ignore[no-untyped-call]
    for number, stage in enumerate(_STAGES):
        for name in stage:
            part = body.get_submodule(name)
            if number < model.freeze_at:
                part.requires_grad_(False)
            if number < model.freeze_at or model.trunk_norm == "FrozenBN":
                setattr(body, name, _freeze_norms(part))
    return body


def _freeze_norms(module: nn.Module) -> nn.Module:
    """Replace BatchNorm by its frozen form: without gradients, statistics would still change."""
    if isinstance(module, nn.BatchNorm2d | nn.SyncBatchNorm):
        frozen: nn.Module = FrozenBatchNorm2d(module.num_features, eps=module.eps)
        frozen.load_state_dict(module.state_dict())
        return frozen
    for name, child in module.named_children():
        setattr(module, name, _freeze_norms(child))
    return module
