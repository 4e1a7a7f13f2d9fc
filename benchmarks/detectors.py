"""Build the torchvision engine's detector, plain torchvision's with the same layers, and images.

The layers have random weights that yield many detections: as many proposals and objects as the
detector may keep, all over the image.
"""

import copy
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torchvision.models.detection import MaskRCNN as PlainMaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.ops import MultiScaleRoIAlign

from benchmarks.measure import BenchmarkSettings
from detection.coco.shapes import draw_image, rasterise
from detection.engines.torchvision.detector import MaskRCNN, assemble, place
from detection.engines.torchvision.pyramid_heads import BOX_RESOLUTION, MASK_RESOLUTION
from detection.feeding.samples import TrainingSample
from detection.recipe.architecture import PRE_NMS_TOP_K, ModelConfig, SamplingConfig
from rsa_pretrain.components.backbone import build_backbone
from rsa_pretrain.components.settings import BackboneConfig
from rsa_pretrain.data.sets import data_set
from rsa_pretrain.weights.foreign.layout import Pixels

_POOLED_LEVELS = ("0", "1", "2", "3")
# Standard deviations of weights that are initialised small, by the end of their layer's name.
_SPREAD = {
    "rpn.head.conv.0.0": 0.02,
    "rpn.head.cls_logits": 0.02,
    "rpn.head.bbox_pred": 0.02,
    "cls_score": 0.3,
    "box_predictor.bbox_pred": 0.05,
    "mask_fcn_logits": 0.3,
}


class DetectionSettings(BenchmarkSettings):
    """A detector with the recipes' heads and random weights, and drawn images."""

    repeats: Annotated[int, Field(ge=1)] = 11
    """Timed runs of each candidate, after a warm-up run."""
    arch: Literal["resnet18", "resnet50"] = "resnet18"
    """Trunk."""
    image_size: Annotated[int, Field(ge=64)] = 320
    """Side of the images, in pixels."""
    batch_size: Annotated[int, Field(ge=1)] = 2
    """Images per training step; detection takes one image at a time."""
    num_classes: Annotated[int, Field(ge=3)] = 80
    """Categories."""
    num_proposals: Annotated[int, Field(ge=1)] = 300
    """Proposals per image."""
    num_regions: Annotated[int, Field(ge=4)] = 128
    """Regions per image in the box head's loss."""
    num_detections: Annotated[int, Field(ge=1)] = 100
    """Detections per image, each with its mask pasted."""


def build_engine(settings: DetectionSettings, image: Tensor) -> MaskRCNN:
    """Build this engine's detector.

    Args:
        settings: Architecture and numbers of boxes.
        image: Image that sets the norms' statistics, (3, H, W), uint8.
    """
    torch.manual_seed(settings.seed)
    body = build_backbone(BackboneConfig(arch=settings.arch, stem="standard"))
    sampling = SamplingConfig(
        proposals_per_image=settings.num_proposals,
        rois_per_image=settings.num_regions,
        detections_per_image=settings.num_detections,
    )
    model = ModelConfig(trunk_norm="BN", head_norm="BN")
    pixels = Pixels(*data_set("imagenet").normalisation)
    detector = assemble(model, sampling, body, pixels, settings.num_classes)
    place(detector, torch.device(settings.device))
    _find_much(detector, image)
    return detector


def plain_copy(settings: DetectionSettings, engine: MaskRCNN, num_samples: int) -> nn.Module:
    """Put copies of the engine's layers into torchvision's detector.

    Args:
        settings: Those of the engine.
        engine: The detector to copy.
        num_samples: Samples per side of a RoIAlign bin; 0 for as many as it covers pixels.
    """
    layers = copy.deepcopy(engine)
    heads = layers.roi_heads
    anchors = ModelConfig().anchors
    plain: nn.Module = PlainMaskRCNN(
        layers.backbone,
        rpn_anchor_generator=AnchorGenerator(
            tuple((size,) for size in anchors.sizes_pixels),
            (anchors.aspect_ratios,) * len(anchors.sizes_pixels),
        ),
        rpn_head=layers.rpn.head,
        rpn_pre_nms_top_n_train=PRE_NMS_TOP_K["FPN"].train,
        rpn_pre_nms_top_n_test=PRE_NMS_TOP_K["FPN"].test,
        rpn_post_nms_top_n_train=settings.num_proposals,
        rpn_post_nms_top_n_test=settings.num_proposals,
        box_roi_pool=MultiScaleRoIAlign(_POOLED_LEVELS, BOX_RESOLUTION, num_samples),
        box_head=heads.box_head,
        box_predictor=heads.box_predictor,
        box_batch_size_per_image=settings.num_regions,
        box_detections_per_img=settings.num_detections,
        mask_roi_pool=MultiScaleRoIAlign(_POOLED_LEVELS, MASK_RESOLUTION, num_samples),
        mask_head=heads.mask_head,
        mask_predictor=heads.mask_predictor,
        min_size=settings.image_size,
    )
    return plain.to(settings.device, memory_format=torch.contiguous_format)


def drawn_samples(
    settings: DetectionSettings,
) -> list[tuple[TrainingSample, dict[str, Tensor]]]:
    """Draw images with a few shapes each, described for the engine and for plain torchvision."""
    random = np.random.default_rng(settings.seed)
    return [_drawn_sample(settings, random) for _ in range(settings.batch_size)]


def _find_much(detector: MaskRCNN, image: Tensor) -> None:
    """Make objectness, classes, boxes and masks vary across the image, as after training."""
    norms = [part for part in detector.modules() if isinstance(part, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        detector.train().backbone(detector.batched([image]).tensors)
        for name, tensor in detector.named_parameters():
            for ending, std in _SPREAD.items():
                if name.endswith(f"{ending}.weight"):
                    tensor.normal_(0, std)
    for norm in norms:
        norm.momentum = 0.1


def _drawn_sample(
    settings: DetectionSettings, random: np.random.Generator
) -> tuple[TrainingSample, dict[str, Tensor]]:
    pixels, shapes = draw_image(settings.image_size, random)
    corners = [polygon for _, polygon in shapes]
    boxes = np.stack([np.concatenate([part.min(0), part.max(0)]) for part in corners])
    sample = TrainingSample(
        image=torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1))),
        boxes=boxes.astype(np.float32),
        labels=np.array([category for category, _ in shapes]),
        outlines=tuple((part,) for part in corners),
    )
    masks = np.stack([rasterise(part, settings.image_size) for part in corners])
    target = {
        "boxes": torch.from_numpy(sample.boxes),
        "labels": torch.from_numpy(sample.labels),
        "masks": torch.from_numpy(masks.astype(np.uint8)),
    }
    if settings.device == "cuda":
        sample = sample.pin_memory()  # as the loader does
    return sample, {key: tensor.to(settings.device) for key, tensor in target.items()}
