"""Mask R-CNN with a feature pyramid from torchvision's parts, on a pretrained trunk.

Images come resized and leave unscaled: the detector's own transform only normalises and pads.
What still differs from detectron2's Mask R-CNN is listed in ``DIFFERENCES_FROM_DETECTRON2``,
which every result quotes.
"""

from typing import Any

import numpy as np
import torch
from pycocotools import mask as mask_codec
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead, FastRCNNPredictor
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.roi_heads import paste_masks_in_image
from torchvision.models.detection.transform import GeneralizedRCNNTransform, resize_boxes
from torchvision.ops import FrozenBatchNorm2d, MultiScaleRoIAlign

from detection.coco_eval import Prediction
from detection.job import Job
from detection.recipe import ModelConfig, Recipe
from detection.samples import TestImages, TestSample, unbroken
from detection.trunk import Trunk
from rsa_pretrain.backbone import build_backbone, feature_dim
from rsa_pretrain.device import autocast
from rsa_pretrain.progress import progress_bar
from rsa_pretrain.stop_signal import leave_signals_to_main_process

DIFFERENCES_FROM_DETECTRON2 = (
    "RoIAlign without the half-pixel offset",
    "anchors rounded to whole pixels",
    "smooth-L1 beta 1/9 in place of 0",
    "torchvision's initialisation of the heads",
    "mask targets by RoIAlign of bitmaps in place of rasterised polygons",
    "masks pasted by torchvision's rule",
    "no aspect-ratio grouping of batches",
    "no precise BN before evaluation",
)

_STAGES = (("conv1", "bn1"), ("layer1",), ("layer2",), ("layer3",), ("layer4",))
_PYRAMID_CHANNELS = 256
_FC_WIDTH = 1024
_BOX_RESOLUTION, _MASK_RESOLUTION = 7, 14
_LEVELS = ("0", "1", "2", "3")
_MASK_THRESHOLD = 0.5


class PreparedImages(GeneralizedRCNNTransform):  # type: ignore[misc]
    """Normalise and pad images of final size; leave results in that size, masks unpasted."""

    def resize(self, image: Tensor, target: Any = None) -> tuple[Tensor, Any]:
        """Return both as they are."""
        return image, target

    def postprocess(self, result: Any, image_shapes: Any, original_image_sizes: Any) -> Any:
        """Return the detections as they are."""
        return result


def build_detector(recipe: Recipe, trunk: Trunk, num_classes: int) -> nn.Module:
    """Build the detector and load its trunk.

    Args:
        recipe: Architecture, sampling and sizes.
        trunk: Weights to start from.
        num_classes: Categories, without the background.

    Raises:
        RuntimeError: If a trunk tensor did not arrive.
    """
    model, sampling = recipe.model, recipe.sampling
    norm = None if model.head_norm == "none" else nn.BatchNorm2d
    num_outputs = num_classes + 1
    box_shape = (_PYRAMID_CHANNELS, _BOX_RESOLUTION, _BOX_RESOLUTION)
    box_convs = [_PYRAMID_CHANNELS] * model.box_head_num_convs
    mask_convs = [_PYRAMID_CHANNELS] * model.mask_head_num_convs
    box_fcs = [_FC_WIDTH] * model.box_head_num_fcs
    detector: nn.Module = MaskRCNN(
        _build_pyramid(model, trunk, norm),
        box_roi_pool=MultiScaleRoIAlign(_LEVELS, _BOX_RESOLUTION, sampling_ratio=0),
        box_head=FastRCNNConvFCHead(box_shape, box_convs, box_fcs, norm),
        box_predictor=FastRCNNPredictor(_FC_WIDTH, num_outputs),
        mask_roi_pool=MultiScaleRoIAlign(_LEVELS, _MASK_RESOLUTION, sampling_ratio=0),
        mask_head=MaskRCNNHeads(_PYRAMID_CHANNELS, mask_convs, 1, norm),
        mask_predictor=MaskRCNNPredictor(_PYRAMID_CHANNELS, _PYRAMID_CHANNELS, num_outputs),
        rpn_batch_size_per_image=sampling.anchors_per_image,
        rpn_post_nms_top_n_train=sampling.proposals_per_image,
        rpn_post_nms_top_n_test=sampling.proposals_per_image,
        box_batch_size_per_image=sampling.rois_per_image,
        box_detections_per_img=sampling.detections_per_image,
    )
    detector.transform = PreparedImages(
        recipe.input.test_short_side_pixels, recipe.input.max_side_pixels, trunk.mean, trunk.std
    )
    check_trunk(detector, trunk)
    return detector


def check_trunk(detector: nn.Module, trunk: Trunk) -> None:
    """Compare every trunk tensor inside the detector with the one it should be, bitwise.

    Raises:
        RuntimeError: If one is absent, additional or different.
    """
    body = detector.get_submodule("backbone.body")
    frozen = [name for name, part in body.named_modules() if isinstance(part, FrozenBatchNorm2d)]
    without_count = {f"{name}.num_batches_tracked" for name in frozen}
    expected = {name: trunk.tensors[name] for name in trunk.tensors.keys() - without_count}
    found = body.state_dict()
    wrong = [
        name
        for name in sorted(expected.keys() | found.keys())
        if name not in expected
        or name not in found
        or not torch.equal(found[name].cpu(), expected[name])
    ]
    if wrong:
        raise RuntimeError(f"{len(wrong)} trunk tensors were not loaded: {', '.join(wrong[:5])}")


def _build_pyramid(
    model: ModelConfig, trunk: Trunk, norm: type[nn.BatchNorm2d] | None
) -> BackboneWithFPN:
    body = build_backbone(trunk.backbone)
    body.load_state_dict(trunk.tensors, strict=True)
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
        out_channels=_PYRAMID_CHANNELS,
        norm_layer=norm,
    )


def _freeze_norms(module: nn.Module) -> nn.Module:
    """Replace BatchNorm by its frozen form: without gradient alone, statistics still move."""
    if isinstance(module, nn.BatchNorm2d):
        frozen: nn.Module = FrozenBatchNorm2d(module.num_features, eps=module.eps)
        frozen.load_state_dict(module.state_dict())
        return frozen
    for name, child in module.named_children():
        setattr(module, name, _freeze_norms(child))
    return module


@torch.no_grad()
def predict(detector: nn.Module, job: Job) -> list[Prediction]:
    """Detect in every test image once.

    Args:
        detector: On the job's device; left in the mode it was in.
        job: Names the test images and the precision.

    Returns:
        Detections in COCO's result format, with the annotation file's ids.
    """
    images = TestImages(job.test_set, job.recipe.input)
    loader = DataLoader(
        images,
        collate_fn=list,
        num_workers=job.recipe.data.num_workers,
        worker_init_fn=leave_signals_to_main_process,
    )
    was_training = detector.training
    detector.eval()
    category_ids = job.test_set.category_ids
    predictions: list[Prediction] = []
    with progress_bar(len(images), "detecting", "img") as bar:
        for (sample,) in unbroken(loader):
            with autocast(job.recipe.training.precision, job.device):
                (result,) = detector([sample.image.to(job.device)])
            predictions += _to_coco(result, sample, category_ids)
            bar.update()
    detector.train(was_training)
    return predictions


def _to_coco(
    result: dict[str, Tensor], sample: TestSample, category_ids: list[int]
) -> list[Prediction]:
    size = (sample.height, sample.width)
    boxes = resize_boxes(result["boxes"].float(), sample.image.shape[-2:], size)
    masks = paste_masks_in_image(result["masks"].float(), boxes, size)[:, 0] > _MASK_THRESHOLD
    codes = mask_codec.encode(np.asfortranarray(masks.cpu().permute(1, 2, 0).byte().numpy()))
    x0, y0, x1, y1 = boxes.cpu().unbind(1)
    corner_and_size = torch.stack([x0, y0, x1 - x0, y1 - y0], dim=1).tolist()
    return [
        {
            "image_id": sample.image_id,
            "category_id": category_ids[label - 1],
            "score": score,
            "bbox": box,
            "segmentation": {"size": code["size"], "counts": code["counts"].decode("ascii")},
        }
        for label, score, box, code in zip(
            result["labels"].tolist(),
            result["scores"].tolist(),
            corner_and_size,
            codes,
            strict=True,
        )
    ]
