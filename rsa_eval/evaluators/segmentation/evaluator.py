"""The dense linear probe, as an evaluation."""

import logging
import math
from typing import Any

import numpy as np

from rsa_eval.evaluators.linear.batches import ReadOrder
from rsa_eval.evaluators.segmentation.deviations import segmentation_deviations
from rsa_eval.evaluators.segmentation.maps import (
    MapShape,
    cached_maps,
    ensure_maps,
    map_shape,
    online_maps,
)
from rsa_eval.evaluators.segmentation.sets import MaskedSet, open_masked_splits
from rsa_eval.evaluators.segmentation.settings import SegmentationConfig
from rsa_eval.evaluators.segmentation.testing import check_masks, count_pixels
from rsa_eval.evaluators.segmentation.training import DenseProbe, train_dense
from rsa_eval.evaluators.shared.labelled_images import describe_images
from rsa_eval.evaluators.shared.resumable import StateFile, training_fingerprint
from rsa_eval.features.dilation import dilated
from rsa_eval.features.frozen import frozen
from rsa_eval.features.subject import Subject
from rsa_eval.records.mask_predictions import MaskPredictions
from rsa_eval.records.record import WARNINGS, Metric, Result
from rsa_eval.records.workspace import Workspace
from rsa_eval.statistics.mask_overlap import (
    OVERLAP_METRICS,
    PixelCounts,
    class_ious,
    class_recalls,
    overlap_metric,
)
from rsa_pretrain.plumbing.errors import UserError

_log = logging.getLogger(__name__)


def evaluate_segmentation(
    subject: Subject, config: SegmentationConfig, workspace: Workspace
) -> Result:
    """Train a linear layer on the last map, and test once, after the last epoch.

    Raises:
        UserError: If the data or the network cannot be used, or the training diverges.
        Stopped: If a signal stopped the training; the same call resumes it.
    """
    train, test = open_masked_splits(config.data, config.masks)
    with frozen(subject.backbone), dilated(subject.backbone, config.probe.output_stride):
        shape = map_shape(subject, config)
        check_masks(test)
        probe = train_on(subject, train, shape, config, workspace)
        counts = count_pixels(subject, probe.head, test, config)
    total = counts.total()
    if not total.truth.any():
        raise UserError("no pixel of the test masks has a class; check masks.layout")
    warned = doubts(total, probe.losses[-1], config.probe.lr)
    for text in warned:
        _log.warning("%s", text)
    return Result(
        metrics={
            name: Metric(value=overlap_metric(total, name), unit="%") for name in OVERLAP_METRICS
        },
        headline="mIoU",
        num_samples=len(test),
        details={
            "loss_by_epoch": probe.losses,
            "map": {"channels": shape[0], "height": shape[1], "width": shape[2]},
            **describe_classes(total, test.class_names),
            **({WARNINGS: warned} if warned else {}),
            "images": describe_images(train.images, test.images),
            "mask_sha256": {"train": train.masks_sha256, "test": test.masks_sha256},
        },
        predictions=MaskPredictions(counts),
        deviations=segmentation_deviations(config, len(train), shape[1]),
        test_keys=test.images.keys(),
    )


def train_on(
    subject: Subject,
    train: MaskedSet,
    shape: MapShape,
    config: SegmentationConfig,
    workspace: Workspace,
) -> DenseProbe:
    """Train a linear layer, from its saved state if there is one.

    Args:
        subject: Backbone, frozen and in eval mode, on its device, and its pixel statistics.
        train: Training images.
        shape: Of a map.
        config: The evaluation.
        workspace: Where the state is kept.

    Raises:
        UserError: If an image or mask cannot be used, or the training diverges.
        Stopped: If a signal stopped the training; the same call resumes it.
    """
    settings = config.probe
    known = f"{training_fingerprint(subject, train.images, config)} {train.masks_sha256}"
    probe = DenseProbe(
        shape[0],
        len(train.class_names),
        settings,
        config.seed,
        StateFile(workspace.state, known),
        subject.device,
    )
    probe.restore()
    order = ReadOrder(len(train), settings.batch_size, settings.epochs, config.seed)
    if settings.mode == "cached":
        check_masks(train)  # maps of an earlier run may be older than their masks
        entry = ensure_maps(subject, train, shape, config)
        steps = cached_maps(subject, train, entry, shape, order, probe.step, config)
    else:
        steps = online_maps(subject, train, shape, order, probe.step, config)
    train_dense(probe, steps, order, config.save_every_minutes)
    return probe


def describe_classes(total: PixelCounts, names: list[str]) -> dict[str, Any]:
    """Return what is known of each class, and how good one class for all pixels would be.

    Args:
        total: Counts of all test images, arrays (C,).
        names: Names of the C classes.

    Returns:
        Details for a record. IoU and accuracy are null for classes without pixels.
    """
    ious, recalls = class_ious(total), class_recalls(total)
    most = int(total.truth.argmax())
    everywhere = np.zeros_like(total.truth)
    everywhere[most] = total.truth.sum()
    right = np.where(everywhere > 0, total.truth, 0)
    constant = PixelCounts(right, total.truth, everywhere)
    return {
        "classes": [
            {
                "name": name,
                "iou": None if np.isnan(iou) else float(iou),
                "accuracy": None if np.isnan(recall) else float(recall),
                "num_pixels": int(count),
            }
            for name, iou, recall, count in zip(names, ious, recalls, total.truth, strict=True)
        ],
        "one_class_everywhere": {
            "name": names[most],
            "mIoU": overlap_metric(constant, "mIoU"),
            "pixel_accuracy": overlap_metric(constant, "pixel_accuracy"),
        },
    }


def doubts(total: PixelCounts, last_loss: float, lr: float) -> list[str]:
    """Say what makes the result doubtful; nothing if all is well.

    Args:
        total: Counts of all test images, arrays (C,).
        last_loss: Mean training loss of the last epoch, in nats.
        lr: ``probe.lr``.
    """
    found, num_classes = [], len(total.truth)
    if last_loss > math.log(num_classes):
        found.append(
            f"the probe did not converge: its last training loss exceeds ln {num_classes}, that of "
            f"guessing, so probe.lr {lr:g} is too high for maps of this scale; lower it"
        )
    absent = int((total.union == 0).sum())
    if absent:
        found.append(
            f"{absent} of {num_classes} classes are neither in the test masks nor predicted, and "
            "count as 0 in mIoU"
        )
    return found
