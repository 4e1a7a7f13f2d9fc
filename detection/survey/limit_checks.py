"""Find objects that a detector's settings cannot detect: too many on an image, or too small."""

import logging
import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from detection.coco.box_forms import Entry, box_of
from detection.coco.counted_objects import counted_objects
from detection.coco.data_settings import SetRole
from detection.coco.evaluation import Prediction, evaluate
from detection.coco.masks import Size
from detection.coco.sets import reason_to_leave_out
from detection.feeding.samples import resized
from detection.recipe.architecture import DEFAULT_ANCHORS, SamplingConfig
from detection.recipe.recipe import InputConfig
from detection.survey.findings import SetFindings

_log = logging.getLogger(__name__)

_DEFAULT_INPUT, _DEFAULT_SAMPLING = InputConfig(), SamplingConfig()
_SIDE_KEYS: dict[SetRole, str] = {
    "train": "input.train_short_sides_pixels",
    "test": "input.test_short_side_pixels",
}

# With half an anchor's side an object covers at most a quarter of it, and the proposal network
# treats anchors that overlap objects by less than 0.3 as background.
_SMALLEST_SHARE_OF_ANCHOR = 0.5
# COCO itself has some; only a larger share is reported.
_MANY = 0.1


@dataclass(frozen=True)
class DetectorLimits:
    """Limits on the number and size of the objects that a detector can find.

    Attributes:
        short_side: Of images entering the network, in pixels; the largest one in training.
        max_side: Upper limit of the long side.
        detections_per_image: Maximum number kept per image.
        smallest_anchor: Square root of its area, in pixels of the resized image.
    """

    short_side: int
    max_side: int
    detections_per_image: int
    smallest_anchor: float


def limits_of(
    role: SetRole,
    settings: InputConfig = _DEFAULT_INPUT,
    sampling: SamplingConfig = _DEFAULT_SAMPLING,
    anchor_sizes: Sequence[float] = DEFAULT_ANCHORS.sizes_pixels,
) -> DetectorLimits:
    """Return the limits set by a recipe or by the defaults.

    Args:
        role: Purpose of the images.
        settings: How images enter the network.
        sampling: Number of detections.
        anchor_sizes: Of all maps, in pixels.
    """
    sides = {
        "train": max(settings.train_short_sides_pixels),
        "test": settings.test_short_side_pixels,
    }
    return DetectorLimits(
        short_side=sides[role],
        max_side=settings.max_side_pixels,
        detections_per_image=sampling.detections_per_image,
        smallest_anchor=min(anchor_sizes),
    )


def check_counts(found: SetFindings, limits: DetectorLimits) -> None:
    """Note images with more objects than detections kept, and the cost in test AP."""
    counts = found.coco.objects_per_image
    most = limits.detections_per_image
    crowded = [
        f"{image['file_name']} ({counts[image['id']]:,})"
        for image in found.coco.images
        if counts[image["id"]] > most
    ]
    if not crowded:
        return
    what = f"images with more objects than sampling.detections_per_image={most}"
    if found.role == "test" and counted_objects(found.coco.tree):
        _log.info("evaluating a perfect detector that keeps %d detections per image", most)
        what += f"; a perfect detector scores {best_ap(found.coco.tree, most):.1f} box AP"
    found.add_note(what, crowded)


def best_ap(tree: Mapping[str, Any], most: int) -> float:
    """Return the box AP of a perfect detector that keeps at most this many detections per image.

    On a crowded image it keeps objects of the rarest categories, which weigh most in the mean over
    categories.
    """
    objects = [entry for entry in tree["annotations"] if not entry.get("iscrowd", 0)]
    sizes = Counter(entry["category_id"] for entry in objects)
    by_image: dict[int, list[Entry]] = defaultdict(list)
    for entry in sorted(objects, key=lambda entry: sizes[entry["category_id"]]):
        by_image[entry["image_id"]].append(entry)
    kept: list[Prediction] = [
        {key: entry[key] for key in ("image_id", "category_id", "bbox")} | {"score": 1.0}
        for entries in by_image.values()
        for entry in entries[:most]
    ]
    return evaluate(tree, kept, ("bbox",), max_detections=most)["bbox_AP"]


def check_sizes(found: SetFindings, limits: DetectorLimits) -> None:
    """Note objects too small for the smallest anchor at network input size."""
    sizes = found.coco.sizes
    least = _SMALLEST_SHARE_OF_ANCHOR * limits.smallest_anchor
    factors = {number: _scale(size, limits) for number, size in sizes.items()}
    objects = 0
    small = []
    for entry in found.coco.tree["annotations"]:
        number = entry["image_id"]
        if reason_to_leave_out(entry, sizes[number]) is not None:
            continue
        objects += 1
        x0, y0, x1, y1 = box_of(entry, sizes[number])
        if math.sqrt((x1 - x0) * (y1 - y0)) * factors[number] < least:
            small.append(found.name_of(entry))
    if len(small) > _MANY * objects:
        found.add_note(
            f"objects smaller than {least:g} pixels, half the smallest anchor, where images have "
            f"a short side of {limits.short_side}, {len(small) / objects:.0%} of all: larger "
            f"{_SIDE_KEYS[found.role]} or smaller model.anchor_sizes_pixels help",
            small,
        )


def _scale(size: Size, limits: DetectorLimits) -> float:
    """Return the factor by which images of a size are enlarged: the root of the area ratio."""
    height, width = size
    new_height, new_width = resized(size, limits.short_side, limits.max_side)
    return math.sqrt(new_height / height * (new_width / width))
