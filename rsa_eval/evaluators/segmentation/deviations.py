"""List a dense linear probe's departures from its published protocol."""

import math

from rsa_eval.evaluators.segmentation.settings import (
    IGNORED,
    DenseProbeConfig,
    MasksConfig,
    SegmentationConfig,
)
from rsa_eval.evaluators.shared.deviations import (
    Extraction,
    common_deviations,
    settings_deviations,
)

_PUBLISHED = DenseProbeConfig()
_SQUARE = 512
_VOC = MasksConfig(
    name="voc2012", layout="voc", train_split="trainaug", train_mask_dir="SegmentationClassAug"
)


def segmentation_deviations(
    config: SegmentationConfig, num_images: int, map_side: int
) -> list[str]:
    """List the departures.

    Args:
        config: The run's settings.
        num_images: Training images.
        map_side: Places along a side of the map.
    """
    # The map is read whatever tokens says.
    mapped = config.model_copy(update={"tokens": "default"})
    deviations = common_deviations(mapped, Extraction("bicubic"))
    # What the map is, not what was asked for, is compared below.
    asked = config.probe.model_copy(update={"output_stride": _PUBLISHED.output_stride})
    deviations += settings_deviations(asked, _PUBLISHED)
    if config.data.image_size != _SQUARE:
        deviations.append(f"squares of {config.data.image_size} pixels (protocol: {_SQUARE})")
    usual_side = math.ceil(config.data.image_size / _PUBLISHED.output_stride)
    if map_side != usual_side:
        deviations.append(
            f"a map of {map_side} × {map_side} places (protocol: {usual_side} × {usual_side}, "
            f"output_stride {_PUBLISHED.output_stride})"
        )
    deviations += _set_deviations(config)
    if num_images % config.probe.batch_size:
        deviations.append(
            f"a last batch of {num_images % config.probe.batch_size} images in each epoch "
            "(protocol: left out)"
        )
    deviations.append("weights of the last epoch (protocol: of the best by test mIoU)")
    return deviations


def _set_deviations(config: SegmentationConfig) -> list[str]:
    """List the departures in splits, masks and classes; those of a set of another name are own."""
    masks, probe, deviations = config.masks, config.probe, []
    if masks.name == _VOC.name:
        pairs = {
            "training images of the split": (masks.split("train"), _VOC.split("train")),
            "test images of the split": (masks.split("test"), _VOC.split("test")),
            "training masks of": (masks.train_mask_dir, _VOC.train_mask_dir),
            "layout": (masks.layout, _VOC.layout),
        }
        deviations += [
            f"{what} {own} (protocol: {expected})"
            for what, (own, expected) in pairs.items()
            if own != expected
        ]
        if masks.class_names != _VOC.class_names:
            deviations.append(f"{len(masks.class_names)} classes of own names (protocol: VOC's 21)")
    warps = probe.rotation_degrees > 0 or probe.scale != (1.0, 1.0)
    if probe.mode == "online" and warps and masks.class_outside == IGNORED:
        deviations.append("pixels outside a warped image do not count (protocol: class 0)")
    return deviations
