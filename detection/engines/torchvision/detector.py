"""Build detectron2's Mask R-CNN with a feature pyramid from torchvision's parts.

It takes a pretrained trunk. Parameters have torchvision's names: ``backbone.body`` is the trunk,
``backbone.fpn`` the pyramid, ``rpn.head``, ``roi_heads.box_head``, … the heads.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import FrozenBatchNorm2d

from detection.coco.masks import Size
from detection.engines.torchvision.initialisation import initialise
from detection.engines.torchvision.proposals import ProposalNetwork
from detection.engines.torchvision.regions import (
    SCORE_THRESHOLD,
    Detections,
    ImageTarget,
    RegionHeads,
)
from detection.exchange.trunk_names import BATCH_COUNT
from detection.feeding.samples import TestSample, TrainingSample
from detection.job.trunk import Trunk, check_arrived
from detection.recipe import ModelConfig, Recipe, SamplingConfig
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
# The trunk's coarsest stride.
_SIZE_DIVISOR = 32


def padded_size(sizes: Sequence[Size]) -> Size:
    """Return the common height and width to which images of these sizes are padded."""
    height, width = (
        (max(sides) + _SIZE_DIVISOR - 1) // _SIZE_DIVISOR * _SIZE_DIVISOR
        for sides in zip(*sizes, strict=True)
    )
    return height, width


class MaskRCNN(nn.Module):
    """The detector: samples to losses in training, samples to detections otherwise.

    Args:
        backbone: Images to the maps of five levels, strides 4 to 64.
        rpn: Maps to boxes.
        roi_heads: Maps and boxes to classes, better boxes and masks.
        pixels: The input that the trunk expects.
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
    ) -> None:
        super().__init__()
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

    def batched(self, images: Sequence[Tensor]) -> ImageList:
        """Normalise 8-bit images and pad them with zeros, at the right and the bottom.

        Images in page-locked memory are sent without waiting for the device.
        """
        device = self.mean.device
        sent = [image.to(device, non_blocking=True) for image in images]
        normalised = [(image - self.mean) / self.std for image in sent]
        sizes = [(image.shape[1], image.shape[2]) for image in normalised]
        height, width = padded_size(sizes)
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
    norm = _NORMS[model.head_norm]
    pyramid = _build_pyramid(model, body, norm)
    proposals = ProposalNetwork(PYRAMID_CHANNELS, model.anchors, sampling)
    heads = RegionHeads(PYRAMID_CHANNELS, num_classes, model, sampling, norm)
    initialise(heads)
    return MaskRCNN(pyramid, proposals, heads, pixels)


def check_trunk(detector: nn.Module, trunk: Trunk) -> None:
    """Check bitwise that every trunk tensor inside the detector is the expected one.

    Raises:
        RuntimeError: If one is missing, unexpected or different.
    """
    body = detector.get_submodule("backbone.body")
    frozen = [name for name, part in body.named_modules() if isinstance(part, FrozenBatchNorm2d)]
    without_count = {f"{name}.{BATCH_COUNT}" for name in frozen}
    expected = {name: trunk.tensors[name] for name in trunk.tensors.keys() - without_count}
    check_arrived(body.state_dict(), expected)


def _build_pyramid(
    model: ModelConfig, body: nn.Module, norm: type[nn.Module] | None
) -> BackboneWithFPN:
    if model.trunk_norm == "SyncBN":
        body = nn.SyncBatchNorm.convert_sync_batchnorm(body)  # type: ignore[no-untyped-call]
    width = feature_dim(body)
    for number, stage in enumerate(_STAGES):
        for name in stage:
            part = body.get_submodule(name)
            if number < model.freeze_at:
                part.requires_grad_(False)
            if number < model.freeze_at or model.trunk_norm == "FrozenBN":
                setattr(body, name, _freeze_norms(part))
    return BackboneWithFPN(
        body,
        return_layers={f"layer{level + 1}": str(level) for level in range(4)},
        in_channels_list=[width // 8, width // 4, width // 2, width],
        out_channels=PYRAMID_CHANNELS,
        norm_layer=norm,
    )


def _freeze_norms(module: nn.Module) -> nn.Module:
    """Replace BatchNorm by its frozen form: without gradients, statistics would still change."""
    if isinstance(module, nn.BatchNorm2d | nn.SyncBatchNorm):
        frozen: nn.Module = FrozenBatchNorm2d(module.num_features, eps=module.eps)
        frozen.load_state_dict(module.state_dict())
        return frozen
    for name, child in module.named_children():
        setattr(module, name, _freeze_norms(child))
    return module
