"""Run the detector on every test image and return detections in COCO's format."""

from contextlib import closing

import numpy as np
import torch
from pycocotools import mask as mask_codec
from torch import Tensor

from detection.coco.evaluation import Prediction
from detection.coco.sets import CocoSet
from detection.engines.gathering import gathered
from detection.engines.torchvision.detector import MaskRCNN
from detection.engines.torchvision.mask_pasting import paste_masks
from detection.engines.torchvision.proposals import has_area
from detection.engines.torchvision.regions import Detections
from detection.feeding.batches import same_size_batches
from detection.feeding.samples import TestImages, TestSample
from detection.job.job import Job
from detection.recipe.recipe import InputConfig
from rsa_pretrain.data.loader import iterate, make_loader
from rsa_pretrain.plumbing.distributed import rank, world_size
from rsa_pretrain.plumbing.progress import progress_bar


def predict(detector: MaskRCNN, job: Job) -> list[Prediction]:
    """Detect in every test image once; several processes share the images.

    Args:
        detector: On the job's device; left in the mode it was in.
        job: Provides the test images. Precision is float32, regardless of training.

    Returns:
        All detections, in every process, in COCO's result format, with the annotation file's ids.
    """
    return detect(detector, job.test_set, job.recipe.input, job.recipe.data.num_workers)


@torch.no_grad()
def detect(
    detector: MaskRCNN,
    coco: CocoSet,
    settings: InputConfig,
    num_workers: int,
    batch_size: int = 1,
) -> list[Prediction]:
    """Detect in every image of a set once; several processes share the images.

    Args:
        detector: Left in the mode it was in.
        coco: Its categories are the detector's.
        settings: Test size.
        num_workers: Loader processes.
        batch_size: Maximum number of images at a time, all of one size.

    Returns:
        All detections, in every process, in COCO's result format, with the set's ids.
    """
    images = TestImages(coco, settings)
    share = range(rank(), len(images), world_size())
    sizes = [detector.padded_size([images.input_size(index)]) for index in range(len(images))]
    batches = same_size_batches(share, sizes.__getitem__, batch_size)
    loader = make_loader(images, batches, num_workers, detector.mean.device, collate=list)
    was_training = detector.training
    detector.eval()
    predictions: list[Prediction] = []
    with progress_bar(len(images), "detecting", "img") as bar, closing(iterate(loader)) as loaded:
        for samples in loaded:
            for found, sample in zip(detector(samples), samples, strict=True):
                predictions += to_coco(found, sample, coco.category_ids)
            bar.update(world_size() * len(samples))
    detector.train(was_training)
    return gathered(predictions)


def to_original(
    found: Detections, input_size: tuple[int, int], size: tuple[int, int]
) -> tuple[Detections, Tensor | None]:
    """Map detections from the resized image to the original one.

    Args:
        found: ``boxes`` in pixels of the resized image, ``labels``, ``scores`` and optionally
            ``masks``.
        input_size: Height and width of the resized image.
        size: Those of the original.

    Returns:
        ``boxes``, ``labels`` and ``scores`` of the detections that have an area there, and their
        masks, (N, height, width), bool; None for a detector without a mask head.
    """
    vertical, horizontal = size[0] / input_size[0], size[1] / input_size[1]
    scale = torch.tensor([horizontal, vertical] * 2, device=found["boxes"].device)
    limit = torch.tensor([size[1], size[0]] * 2, device=found["boxes"].device)
    boxes = (found["boxes"] * scale).clamp(min=0).minimum(limit)
    kept = has_area(boxes)
    rest = {"boxes": boxes[kept], "labels": found["labels"][kept], "scores": found["scores"][kept]}
    if "masks" not in found:
        return rest, None
    return rest, paste_masks(found["masks"][kept], boxes[kept], size)


def to_coco(found: Detections, sample: TestSample, category_ids: list[int]) -> list[Prediction]:
    """Convert an image's detections to COCO's result format.

    Args:
        found: As the detector returns them.
        sample: The image.
        category_ids: The category of each label, from label 1.
    """
    height, width = sample.image.shape[1:]
    kept, masks = to_original(found, (height, width), (sample.height, sample.width))
    x0, y0, x1, y1 = kept["boxes"].cpu().unbind(1)
    corner_and_size = torch.stack([x0, y0, x1 - x0, y1 - y0], dim=1).tolist()
    return [
        {
            "image_id": sample.image_id,
            "category_id": category_ids[label - 1],
            "score": score,
            "bbox": box,
            **mask,
        }
        for label, score, box, mask in zip(
            kept["labels"].tolist(),
            kept["scores"].tolist(),
            corner_and_size,
            [{}] * len(corner_and_size) if masks is None else _coded(masks),
            strict=True,
        )
    ]


def _coded(masks: Tensor) -> list[Prediction]:
    """Return each mask as a compressed run-length code under COCO's key."""
    pixels = masks.cpu().permute(1, 2, 0).view(torch.uint8).numpy()
    codes = mask_codec.encode(np.asfortranarray(pixels))
    return [
        {"segmentation": {"size": code["size"], "counts": code["counts"].decode("ascii")}}
        for code in codes
    ]
