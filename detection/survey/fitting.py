"""Fit a run's settings to its training set, each with its reason in the set's own numbers.

For one process that starts from a pretrained backbone.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from detection.coco.sets import CocoSet, TrainingImage, without_mask
from detection.recipe.architecture import DEFAULT_ANCHORS, SamplingConfig
from detection.recipe.recipe import DetectorTrainingConfig, EngineName
from detection.survey.explained_config import ChosenValue
from detection.survey.fitting_sizes import (
    MATCHED_IOU,
    InputFit,
    Lengths,
    entered_boxes,
    fit_anchors,
    fit_input,
    half_of,
    matched_share,
    sides_of,
)

_BATCH_SIZE = 4
_COCO_RATE, _COCO_BATCH_SIZE = 0.02, 16
_USUAL_EPOCHS, _COCO_EPOCHS = 50, 12
_FEWEST_ITERATIONS, _MANY_ITERATIONS = 2_000, 20_000
_WARMUP_SHARE, _FEWEST_WARMUP_ITERATIONS = 0.05, 300
_DECAY_SHARES = (0.7, 0.9)
_EVALUATIONS = 10
_MOST_BETWEEN_CHECKPOINTS = DetectorTrainingConfig().checkpoint_every_iterations
_NORMS = "Over the batch of one process; SyncBN computes statistics over several GPUs."
_FEWEST_NORM_BATCHES, _MOST_NORM_BATCHES = 20, 200
_DETECTIONS_STEP = 100
_MOST_EMPTY = 0.5
# Two cells of the finest map.
_TINY_PIXELS = 8
_TINY_SHARE = 0.1


class FittedSettings(NamedTuple):
    """Settings, and notes on problems in the images."""

    choices: list[ChosenValue]
    notes: list[str]


def fit_settings(
    images: Sequence[TrainingImage], most_objects: int, epochs: int | None, engine: EngineName
) -> FittedSettings:
    """Choose the settings that depend on the images and their objects.

    Args:
        images: Training images, of which at least one has an object.
        most_objects: Largest number on one training or test image.
        epochs: Passes over the training images; None chooses.
        engine: Trains the run.
    """
    entered = fit_input(images)
    boxes = entered_boxes(images, entered.settings)
    choices = [
        *_input_choices(entered),
        ChosenValue("model.trunk_norm", "BN", _NORMS),
        ChosenValue("model.head_norm", "BN"),
        _mask_choice(images, engine),
        *_anchor_choices(boxes),
        *_sampling_choices(most_objects),
        *_loop_choices(len(images), epochs),
    ]
    return FittedSettings(choices, _notes(boxes))


def keep_empty_choice(coco: CocoSet) -> ChosenValue:
    """Choose whether images without annotations are trained on: unless they are the majority.

    Args:
        coco: The training set.
    """
    annotated = {entry["image_id"] for entry in coco.tree["annotations"]}
    num_images = len(coco.images)
    num_empty = num_images - len(annotated)
    kept = 0 < num_empty <= _MOST_EMPTY * num_images
    if not num_empty:
        return ChosenValue(
            "data.keep_empty_images", kept, "Every training image has an annotation."
        )
    why = f"{num_empty:,} of {num_images:,} training images have no annotation"
    if kept:
        why += " and are background; if they are not annotated yet, false leaves them out."
    else:
        why += ", too many to be intended as background; true trains on them, too."
    return ChosenValue("data.keep_empty_images", kept, why)


def _notes(boxes: Lengths) -> list[str]:
    share = float((sides_of(boxes) < _TINY_PIXELS).mean())
    if share < _TINY_SHARE:
        return []
    return [
        f"{_percent(share)} of the objects enter the network smaller than {_TINY_PIXELS} pixels "
        "and will hardly be found; cut the images into tiles, or raise the input.* sizes"
    ]


def _input_choices(entered: InputFit) -> list[ChosenValue]:
    settings = entered.settings
    return [
        ChosenValue(
            "input.train_short_sides_pixels", [*settings.train_short_sides_pixels], entered.why
        ),
        ChosenValue("input.test_short_side_pixels", settings.test_short_side_pixels),
        ChosenValue("input.max_side_pixels", settings.max_side_pixels),
    ]


def _mask_choice(images: Sequence[TrainingImage], engine: EngineName) -> ChosenValue:
    instances = [entry for image in images for entry in image.annotations]
    lacking = len(without_mask(instances))
    counted = f"{lacking:,} of {len(instances):,} objects have no mask"
    if lacking == len(instances):
        return ChosenValue(
            "model.mask_head", False, "No object has a mask: only boxes are trained."
        )
    if lacking and engine == "detectron2":
        return ChosenValue(
            "model.mask_head", False, f"{counted}, and detectron2 needs masks on all or none."
        )
    why = f"{counted} and train only boxes." if lacking else "Every object has a mask."
    return ChosenValue("model.mask_head", True, why)


def _anchor_choices(boxes: Lengths) -> list[ChosenValue]:
    anchors = fit_anchors(boxes)
    low, high = np.quantile(sides_of(boxes), (0.05, 0.95))
    flat, tall = np.quantile(boxes[:, 1] / boxes[:, 0], (0.05, 0.95))
    why = (
        f"At this size half of the {len(boxes):,} boxes are {half_of(sides_of(boxes))} pixels "
        f"large, nine in ten {low:.0f} to {high:.0f} (square root of the area). "
        f"{_percent(matched_share(boxes, anchors))} have an anchor of IoU {MATCHED_IOU} or more"
    )
    if anchors != DEFAULT_ANCHORS:
        usual = _percent(matched_share(boxes, DEFAULT_ANCHORS))
        why += f"; with the default anchors (32 to 512 pixels; 0.5, 1 and 2) {usual} do"
    shapes = f"Nine boxes in ten have a height of {flat:.2g} to {tall:.2g} times their width."
    return [
        ChosenValue("model.anchor_sizes_pixels", _plain(anchors.sizes_pixels), f"{why}."),
        ChosenValue("model.anchor_aspect_ratios", _plain(anchors.aspect_ratios), shapes),
    ]


def _sampling_choices(most_objects: int) -> list[ChosenValue]:
    usual = SamplingConfig()
    detections = usual.detections_per_image
    why = f"The fullest image has {most_objects:,} objects"
    if most_objects <= detections:
        why += "; COCO's average precision counts 100 detections per image."
    else:
        steps = math.ceil(1.5 * most_objects / _DETECTIONS_STEP)
        detections = steps * _DETECTIONS_STEP
        why += "; this leaves room for half as many wrong detections."
    proposals = max(usual.proposals_per_image, 5 * detections)
    return [
        ChosenValue("sampling.detections_per_image", detections, why),
        ChosenValue("sampling.proposals_per_image", proposals),
    ]


def _loop_choices(num_images: int, epochs: int | None) -> list[ChosenValue]:
    batch_size = min(_BATCH_SIZE, num_images)
    per_epoch = num_images / batch_size
    iterations, why = _length(per_epoch, epochs)
    done = iterations / per_epoch
    warmup = max(round(_WARMUP_SHARE * iterations), _FEWEST_WARMUP_ITERATIONS)
    warmup = min(warmup, iterations // 3)
    decay_at = sorted({round(share * iterations) for share in _DECAY_SHARES} - {0, iterations})
    every = max(1, iterations // _EVALUATIONS)
    norm_batches = min(max(math.ceil(per_epoch), _FEWEST_NORM_BATCHES), _MOST_NORM_BATCHES)
    of_one_batch = (
        "Images per iteration, over all processes. If only this changes, rate and lengths scale "
        "with it: they are stated for reference_batch_size."
    )
    rate = f"In proportion to COCO's {_COCO_RATE} for {_COCO_BATCH_SIZE} images."
    length = f"{done:,.0f} epochs of {num_images:,} images: {why}."
    warming = f"{_percent(warmup / iterations)} of the run: the heads start from random weights."
    norms = (
        "Batches for the norms' statistics before an evaluation: an epoch, but limited to "
        f"{_FEWEST_NORM_BATCHES} to {_MOST_NORM_BATCHES}."
    )
    watched = f"{_EVALUATIONS} times over the run; the final one is the result."
    return [
        ChosenValue("solver.batch_size", batch_size, of_one_batch),
        ChosenValue("solver.reference_batch_size", batch_size),
        ChosenValue("solver.base_lr", _COCO_RATE * batch_size / _COCO_BATCH_SIZE, rate),
        ChosenValue("solver.iterations", iterations, length),
        ChosenValue("solver.warmup_iterations", warmup, warming),
        ChosenValue("solver.decay_at", decay_at, "At 70 and 90 % of the run."),
        ChosenValue("training.evaluate_every_iterations", every, watched),
        ChosenValue("training.checkpoint_every_iterations", min(every, _MOST_BETWEEN_CHECKPOINTS)),
        ChosenValue("training.precise_bn_iterations", norm_batches, norms),
    ]


def _length(per_epoch: float, epochs: int | None) -> tuple[int, str]:
    """Return the number of iterations and the reason.

    Args:
        per_epoch: Iterations per pass over the images.
        epochs: Passes requested; None chooses.
    """
    if epochs is not None:
        return math.ceil(epochs * per_epoch), "as asked for"
    usual = _USUAL_EPOCHS * per_epoch
    if usual < _FEWEST_ITERATIONS:
        return _FEWEST_ITERATIONS, f"the heads take some {_FEWEST_ITERATIONS:,} iterations"
    if usual <= _MANY_ITERATIONS:
        return math.ceil(usual), "as is usual for small sets"
    if _COCO_EPOCHS * per_epoch < _MANY_ITERATIONS:
        return _MANY_ITERATIONS, f"{_MANY_ITERATIONS:,} iterations are enough for medium sets"
    return math.ceil(_COCO_EPOCHS * per_epoch), "as many as COCO's 1x schedule"


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def _plain(numbers: Sequence[float]) -> list[float]:
    """Return whole numbers without their decimal point."""
    return [int(number) if number == int(number) else number for number in numbers]
