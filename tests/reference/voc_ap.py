"""VOC's average precision, detection by detection in exact fractions: no code of the package.

The rule of the development kit's VOCevaldet.m, with boxes of pixels counted from 1 and the last one
included; its recall levels are exact here.
"""

from fractions import Fraction


def overlap(one, other):
    """Return the IoU of two boxes [xmin, ymin, xmax, ymax] of whole pixels."""
    width = min(one[2], other[2]) - max(one[0], other[0]) + 1
    height = min(one[3], other[3]) - max(one[1], other[1]) + 1
    if width <= 0 or height <= 0:
        return Fraction(0)
    areas = [(box[2] - box[0] + 1) * (box[3] - box[1] + 1) for box in (one, other)]
    return Fraction(width * height, sum(areas) - width * height)


def average_precision(objects, detections, threshold):
    """Return AP of eleven recalls and of the area, for one class.

    Args:
        objects: Image, box and whether it is difficult, of each object.
        detections: Image, box and score of each, in the order in which ties rank.
        threshold: IoU from which a detection is on an object.
    """
    total = sum(not difficult for _, _, difficult in objects)
    found, right, wrong, curve = set(), 0, 0, []
    for image, box, _ in sorted(detections, key=lambda detection: -detection[2]):
        own = [place for place, entry in enumerate(objects) if entry[0] == image]
        best = max(own, key=lambda place: overlap(box, objects[place][1]), default=None)
        if best is None or overlap(box, objects[best][1]) < threshold:
            wrong += 1
        elif objects[best][2]:
            continue
        elif best in found:
            wrong += 1
        else:
            found.add(best)
            right += 1
        curve.append((Fraction(right, total), Fraction(right, right + wrong)))
    levels = [
        max((precision for recall, precision in curve if recall >= Fraction(tenths, 10)), default=0)
        for tenths in range(11)
    ]
    area, before = Fraction(0), Fraction(0)
    for recall, _ in curve:
        if recall > before:
            area += (recall - before) * max(p for r, p in curve if r >= recall)
            before = recall
    return sum(levels) / 11, area
