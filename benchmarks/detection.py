"""The torchvision engine's Mask R-CNN against plain torchvision's, of the same layers and weights.

Plain torchvision runs copies of the very same trunk, pyramid and heads; what surrounds them is its
own: anchors, matching, pooling, losses, suppression and the pasting of masks. It is measured twice:
as it comes, with 2 x 2 samples in a bin of RoIAlign, and with as many as a bin has pixels of the
map, which is detectron2's arithmetic and this engine's.
"""

import copy
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torchvision.models.detection import MaskRCNN as PlainMaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.ops import MultiScaleRoIAlign

from benchmarks.measure import (
    Benchmark,
    BenchmarkSettings,
    Figure,
    Finding,
    Measurement,
    alternate,
    ratio,
)
from detection.engines.torchvision.detector import MaskRCNN, assemble
from detection.engines.torchvision.prediction import to_original
from detection.engines.torchvision.proposals import PRE_NMS_TOP_K_TEST, PRE_NMS_TOP_K_TRAIN
from detection.engines.torchvision.regions import BOX_RESOLUTION, MASK_RESOLUTION
from detection.recipe import ModelConfig, SamplingConfig
from detection.samples import TestSample, TrainingSample
from detection.shapes import draw_image, rasterise
from detection.trunk import IMAGENET_MEAN, IMAGENET_STD
from rsa_pretrain.backbone import build_backbone
from rsa_pretrain.config import BackboneConfig
from rsa_pretrain.foreign.layout import Pixels
from rsa_pretrain.optim import fused_sgd

_ENGINE, _PLAIN, _AS_IT_COMES = "engine", "torchvision, same RoIAlign", "torchvision as it comes"
# Samples of a bin along each side; 0 takes as many as it has pixels of the map.
_SAMPLES = {_PLAIN: 0, _AS_IT_COMES: 2}
_POOLED_LEVELS = ("0", "1", "2", "3")
# Small enough to leave the weights what they are: every step then finds as much to do.
_LEARNING_RATE = 1e-8

# Standard deviations of weights, by the last part of their layer's name.
_SPREAD = {
    "rpn.head.conv.0.0": 0.02,
    "rpn.head.cls_logits": 0.02,
    "rpn.head.bbox_pred": 0.02,
    "cls_score": 0.3,
    "box_predictor.bbox_pred": 0.05,
    "mask_fcn_logits": 0.3,
}

Run = Callable[[], Any]


class DetectionSettings(BenchmarkSettings):
    """A detector with random weights that find many things, and drawn images."""

    repeats: Annotated[int, Field(ge=1)] = 7
    """Timed runs of each candidate, after one that is not counted."""
    arch: Literal["resnet18", "resnet50"] = "resnet18"
    """Trunk."""
    image_size: Annotated[int, Field(ge=64)] = 320
    """Side of the images, in pixels."""
    batch_size: Annotated[int, Field(ge=1)] = 2
    """Images of a training step; detections are made one image at a time."""
    num_classes: Annotated[int, Field(ge=3)] = 80
    """Categories."""
    num_proposals: Annotated[int, Field(ge=1)] = 300
    """Proposals of an image."""
    num_regions: Annotated[int, Field(ge=4)] = 128
    """Regions of an image in the box head's loss."""
    num_detections: Annotated[int, Field(ge=1)] = 100
    """Detections of an image, each with its mask pasted into it."""


def measure(settings: DetectionSettings) -> Measurement:
    """Time detections and training steps of all three detectors in turn."""
    candidates = {
        f"{task}, {name}": run
        for task, prepare in _TASKS.items()
        for name, run in prepare(settings).items()
    }
    seconds = alternate(candidates, settings.repeats, settings.device)
    findings = [
        Finding(
            what=f"time of {task} over torchvision's with the same RoIAlign",
            value=ratio(seconds, f"{task}, {_ENGINE}", f"{task}, {_PLAIN}"),
            unit="×",
            bound="at most",
            limit=limit,
        )
        for task, limit in _LIMITS.items()
    ]
    figures = [
        Figure(
            what=f"time of {task} over that of torchvision as it comes",
            value=ratio(seconds, f"{task}, {_ENGINE}", f"{task}, {_AS_IT_COMES}"),
            unit="×",
        )
        for task in _LIMITS
    ]
    return Measurement(findings, seconds, figures)


def prepared_detections(settings: DetectionSettings) -> dict[str, Run]:
    """Return what finds an image's objects, masks pasted into it, by each detector's name."""
    sample, _ = drawn_samples(settings)[0]
    size = (sample.image.shape[1], sample.image.shape[2])
    engine = find_many(build_engine(settings), sample.image).eval()

    @torch.no_grad()
    def ours() -> Any:
        (found,) = engine([TestSample(sample.image, 1, *size)])
        kept, masks = to_original(found, size, size)
        return {**kept, "masks": masks}

    @torch.no_grad()
    def theirs(plain: nn.Module) -> Any:
        (found,) = plain([sample.image / 255])
        return found

    return {_ENGINE: ours} | {
        name: partial(theirs, plain_copy(settings, engine, samples).eval())
        for name, samples in _SAMPLES.items()
    }


def prepared_steps(settings: DetectionSettings) -> dict[str, Run]:
    """Return what takes training steps on the same images again and again, by detector's name."""
    samples, targets = zip(*drawn_samples(settings), strict=True)
    engine = find_many(build_engine(settings), samples[0].image).train()
    images = [sample.image / 255 for sample in samples]
    runs: dict[str, Run] = {_ENGINE: _steps(engine, lambda: engine(samples), settings.seed)}
    for name, num_samples in _SAMPLES.items():
        plain = plain_copy(settings, engine, num_samples).train()
        runs[name] = _steps(plain, partial(plain, images, targets), settings.seed)
    return runs


def _steps(detector: nn.Module, losses: Callable[[], dict[str, Tensor]], seed: int) -> Run:
    groups = [{"params": list(detector.parameters()), "weight_decay": 0.0}]
    optimizer = fused_sgd(groups, lr=_LEARNING_RATE, momentum=0.9)

    def step() -> dict[str, Tensor]:
        torch.manual_seed(seed)
        found = losses()
        optimizer.zero_grad(set_to_none=True)
        torch.stack(list(found.values())).sum().backward()
        optimizer.step()
        return found

    return step


def build_engine(settings: DetectionSettings) -> MaskRCNN:
    """Build this engine's detector with the recipes' heads."""
    torch.manual_seed(settings.seed)
    body = build_backbone(BackboneConfig(arch=settings.arch, stem="standard"))
    sampling = SamplingConfig(
        proposals_per_image=settings.num_proposals,
        rois_per_image=settings.num_regions,
        detections_per_image=settings.num_detections,
    )
    model = ModelConfig(trunk_norm="BN", head_norm="BN")
    detector = assemble(
        model, sampling, body, Pixels(IMAGENET_MEAN, IMAGENET_STD), settings.num_classes
    )
    return detector.to(settings.device)


def plain_copy(settings: DetectionSettings, engine: MaskRCNN, num_samples: int) -> nn.Module:
    """Put copies of the engine's layers into torchvision's detector.

    Args:
        settings: Numbers of proposals, regions and detections.
        engine: The detector to copy.
        num_samples: Of a bin of RoIAlign along each side; 0 for as many as it has pixels.
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
        rpn_pre_nms_top_n_train=PRE_NMS_TOP_K_TRAIN,
        rpn_pre_nms_top_n_test=PRE_NMS_TOP_K_TEST,
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
    return plain.to(settings.device)


def find_many(detector: MaskRCNN, image: Tensor) -> MaskRCNN:
    """Give the norms an image's statistics, and enlarge what initialisation keeps small.

    Objectness, classes, boxes and masks then differ from place to place, as a trained detector's.
    """
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
    return detector


def drawn_samples(
    settings: DetectionSettings,
) -> list[tuple[TrainingSample, dict[str, Tensor]]]:
    """Draw images with a few shapes each, described for the engine and for plain torchvision."""
    random = np.random.default_rng(settings.seed)
    return [_drawn_sample(settings, random) for _ in range(settings.batch_size)]


def _drawn_sample(
    settings: DetectionSettings, random: np.random.Generator
) -> tuple[TrainingSample, dict[str, Tensor]]:
    pixels, shapes = draw_image(settings.image_size, random)
    corners = [polygon for _, polygon in shapes]
    boxes = np.stack([np.concatenate([part.min(0), part.max(0)]) for part in corners])
    labels = np.array([category for category, _ in shapes])
    sample = TrainingSample(
        image=torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1))),
        boxes=boxes.astype(np.float32),
        labels=labels,
        outlines=tuple((part,) for part in corners),
    )
    masks = np.stack([rasterise(part, settings.image_size) for part in corners])
    target = {
        "boxes": torch.from_numpy(sample.boxes),
        "labels": torch.from_numpy(labels),
        "masks": torch.from_numpy(masks.astype(np.uint8)),
    }
    return sample, {key: tensor.to(settings.device) for key, tensor in target.items()}


_TASKS = {"detection": prepared_detections, "training step": prepared_steps}
_LIMITS = {"detection": 1.05, "training step": 1.02}

BENCHMARK = Benchmark(
    settings=DetectionSettings,
    measure=measure,
    summary="The torchvision engine of detection beside torchvision's own Mask R-CNN.",
)
