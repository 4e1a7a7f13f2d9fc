"""Compare boxes with their masks and with other boxes of the same objects."""

from collections import defaultdict
from collections.abc import Iterator, Sequence

from pycocotools import mask as mask_codec

from detection.coco.box_forms import (
    OFF_PIXELS,
    OFF_SHARE,
    Corners,
    Entry,
    box_of,
    box_of_mask,
    fits,
    form_that_fits,
)
from detection.coco.masks import Size, encode_mask, has_mask
from detection.coco.sets import reason_to_leave_out
from detection.survey.findings import SetFindings

BESIDE = "boxes off their masks, sharing less than half of the smaller of the two"
LOOSE = (
    f"boxes with a side more than {OFF_PIXELS:g} pixels and {OFF_SHARE:.0%} of the mask's extent "
    "off their masks"
)
EMPTY = "masks without area"
TWICE = "duplicates of an earlier annotation, with the same category, box and mask"

# Of the smaller of a box and the box around its mask. A box around all of a partly hidden object
# contains the mask; one around the visible part is contained in it.
_SHARED = 0.5
_SAME_BOX, _SAME_MASK = 0.99, 0.9


def compare_with_masks(found: SetFindings) -> None:
    """Find boxes that do not fit their masks.

    Args:
        found: Receives an error for a box beside its mask or not in COCO's form, and a note for a
            loose box and for a mask without area.
    """
    sizes = found.coco.sizes
    for entry in found.coco.objects:
        size = sizes[entry["image_id"]]
        around = box_of_mask(entry, size)
        if around is None or reason_to_leave_out(entry, size) is not None:
            continue
        if not _area(around):
            found.add_note(EMPTY, [found.name_of(entry)])
        elif not fits(box_of(entry, size), around):
            _report_misfit(found, entry, size, around)


def _report_misfit(found: SetFindings, entry: Entry, size: Size, around: Corners) -> None:
    box = box_of(entry, size)
    form = form_that_fits(entry, size, around)
    if form is not None:
        found.add_error(form.fault, [found.name_of(entry)])
    elif _area(_shared(box, around)) < _SHARED * min(_area(box), _area(around)):
        found.add_error(
            BESIDE, [f"{found.name_of(entry)} (box {_text(box)}, mask {_text(around)})"]
        )
    else:
        found.add_note(LOOSE, [found.name_of(entry)])


def find_repeats(found: SetFindings) -> None:
    """Find objects, except crowds, that are annotated more than once.

    A few are a note: published sets have some. If half of the objects are repeated, the whole file
    was probably written twice, and no detector can find them all: an error.
    """
    sizes = found.coco.sizes
    groups: dict[tuple[int, int], list[Entry]] = defaultdict(list)
    for entry in found.coco.objects:
        groups[entry["image_id"], entry["category_id"]].append(entry)
    repeats = [
        f"{found.name_of(later)} (as {found.name_of(earlier)})"
        for (image_id, _), group in groups.items()
        for earlier, later in _repeats(group, sizes[image_id])
    ]
    num_distinct = sum(map(len, groups.values())) - len(repeats)
    report = found.add_error if 2 * len(repeats) >= num_distinct else found.add_note
    report(TWICE, repeats)


def _repeats(entries: Sequence[Entry], size: Size) -> Iterator[tuple[Entry, Entry]]:
    """Yield (first, repeat) for each repeated object of one image and category."""
    firsts: list[Entry] = []
    for entry in sorted(entries, key=lambda entry: entry["bbox"][0]):
        first = _same_among(firsts, entry, size)
        if first is None:
            firsts.append(entry)
        else:
            yield first, entry


def _same_among(others: Sequence[Entry], entry: Entry, size: Size) -> Entry | None:
    """Find the same object's annotation among those that start further left, sorted by x."""
    x, _, width, _ = entry["bbox"]
    # Nearly equal boxes start at nearly the same x.
    leftmost = x - (1 / _SAME_BOX - 1) * width
    for other in reversed(others):
        if other["bbox"][0] < leftmost:
            return None
        if _is_same(entry, other, size):
            return other
    return None


def _is_same(entry: Entry, other: Entry, size: Size) -> bool:
    if mask_codec.iou([entry["bbox"]], [other["bbox"]], [False])[0, 0] < _SAME_BOX:
        return False
    masks = [entry.get("segmentation"), other.get("segmentation")]
    if masks[0] == masks[1] or not all(map(has_mask, masks)):
        return True
    first, second = (encode_mask(mask, size) for mask in masks)
    return bool(mask_codec.iou([first], [second], [False])[0, 0] >= _SAME_MASK)


def _shared(box: Corners, other: Corners) -> Corners:
    return (
        max(box[0], other[0]),
        max(box[1], other[1]),
        min(box[2], other[2]),
        min(box[3], other[3]),
    )


def _area(box: Corners) -> float:
    return max(box[2] - box[0], 0) * max(box[3] - box[1], 0)


def _text(box: Corners) -> str:
    x0, y0, x1, y1 = box
    return f"[{x0:g}, {y0:g}, {x1 - x0:g}, {y1 - y0:g}]"
