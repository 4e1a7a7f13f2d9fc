"""List a dense linear probe's departures from its published protocol."""

from rsa_eval.evaluators.segmentation.settings import DenseProbeConfig, SegmentationConfig
from rsa_eval.evaluators.shared.deviations import (
    Extraction,
    common_deviations,
    settings_deviations,
)

_PUBLISHED = DenseProbeConfig()
_SQUARE = 512
_VOC, _VOC_TRAINING = "voc2012", "trainaug"


def segmentation_deviations(
    config: SegmentationConfig, num_images: int, pixels_per_place: int
) -> list[str]:
    """List the departures.

    Args:
        config: The run's settings.
        num_images: Training images.
        pixels_per_place: Side of the square over that of the map.
    """
    # The map is read whatever tokens says.
    mapped = config.model_copy(update={"tokens": "default"})
    deviations = common_deviations(mapped, Extraction("bicubic"))
    # What the map is, not what was asked for, is compared below.
    asked = config.probe.model_copy(update={"output_stride": _PUBLISHED.output_stride})
    deviations += settings_deviations(asked, _PUBLISHED)
    if config.data.image_size != _SQUARE:
        deviations.append(f"squares of {config.data.image_size} pixels (protocol: {_SQUARE})")
    if pixels_per_place != _PUBLISHED.output_stride:
        deviations.append(
            f"a place of the map for {pixels_per_place} pixels (protocol: "
            f"{_PUBLISHED.output_stride})"
        )
    split = config.masks.split("train")
    if config.masks.name == _VOC and split != _VOC_TRAINING:
        deviations.append(f"training images of the split {split} (protocol: {_VOC_TRAINING})")
    if num_images % config.probe.batch_size:
        deviations.append(
            f"a last batch of {num_images % config.probe.batch_size} images in each epoch "
            "(protocol: left out)"
        )
    deviations.append("weights of the last epoch (protocol: of the best by test mIoU)")
    return deviations
