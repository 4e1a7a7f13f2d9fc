"""Classify the pixels of the test images at their original size."""

from contextlib import closing

import numpy as np
import torch
from torch import Tensor, nn

from rsa_eval.evaluators.segmentation.maps import map_batch_size, square_maps
from rsa_eval.evaluators.segmentation.sets import MaskedSet
from rsa_eval.evaluators.segmentation.settings import SegmentationConfig
from rsa_eval.evaluators.segmentation.squares import resized_mask
from rsa_eval.evaluators.segmentation.training import enlarge
from rsa_eval.features.share import own_share
from rsa_eval.features.subject import Subject
from rsa_eval.statistics.mask_overlap import PixelCounts, confusion_matrix
from rsa_pretrain.plumbing.device import without_tf32
from rsa_pretrain.plumbing.distributed import failing_together, sum_over_ranks
from rsa_pretrain.plumbing.threads import map_in_threads


def check_masks(images: MaskedSet) -> None:
    """Read every mask beforehand, for a damaged one would waste what was computed before it.

    Raises:
        UserError: If one is damaged, has a value that is no class, or not its image's size.
    """
    for _ in map_in_threads(images.check_mask, range(len(images)), "checking masks", "img"):
        pass


@torch.no_grad()
def count_pixels(
    subject: Subject, head: nn.Conv2d, images: MaskedSet, config: SegmentationConfig
) -> PixelCounts:
    """Classify each image once, and compare with its mask; processes share the work.

    Args:
        subject: Backbone, frozen and in eval mode, on its device, and its pixel statistics.
        head: The trained layer.
        images: Test images.
        config: The evaluation.

    Returns:
        Counts of each image, arrays (N, C).

    Raises:
        UserError: If an image or mask cannot be used, or a map is not finite.
    """
    num_classes, side = len(images.class_names), config.data.image_size
    counts = torch.zeros(len(images), 3, num_classes, dtype=torch.int64)
    own = own_share().batches(len(images), map_batch_size(config))
    maps = square_maps(subject, images, config, "test images", own)
    with closing(maps), failing_together():
        for first, (found, masks) in maps:
            with without_tf32("fp32"):
                logits = head(found)
            for row, mask in enumerate(masks):
                predicted = classes_of_pixels(logits[row], side, tuple(mask.shape))
                matrix = confusion_matrix(mask.numpy(), predicted.numpy(), num_classes)
                sums = [matrix.diagonal(), matrix.sum(axis=1), matrix.sum(axis=0)]
                counts[first + row] = torch.from_numpy(np.stack(sums))
    counts = counts.to(subject.device)
    sum_over_ranks(counts)
    right, truth, predicted_counts = counts.cpu().numpy().transpose(1, 0, 2)
    return PixelCounts(right, truth, predicted_counts)


def classes_of_pixels(logits: Tensor, side: int, size: tuple[int, ...]) -> Tensor:
    """Return the most likely class of each pixel of an image.

    Args:
        logits: Of the places of its map, (C, h, w); interpolated bilinearly to the square.
        side: Side of the square that the network saw.
        size: Height and width of the image, to which the classes are resized.

    Returns:
        uint8 (H, W), on the CPU.
    """
    square = enlarge(logits[None], side, side)[0].argmax(dim=0).to(torch.uint8)
    return resized_mask(square, *size).cpu()
