"""COCO's average precision of one resample, copy by copy: no code of the package.

The loops of pycocotools' accumulate over lists of single detections.
"""

import numpy as np

METRICS = {
    "AP": (range(10), 0),
    "AP50": ([0], 0),
    "AP75": ([5], 0),
    "APs": (range(10), 1),
    "APm": (range(10), 2),
    "APl": (range(10), 3),
}


def average_precision(detections, objects, counts, num_categories):
    """Return every metric in percent, -1 where there is no object.

    Args:
        detections: Image, category and, as (sizes, overlaps), whether it is matched and ignored,
            of each detection in ranked order.
        objects: Image, category and number by size, of each pair.
        counts: How often each image occurs, (N,).
        num_categories: Number of categories.
    """
    found = {}
    for name, (overlaps, size) in METRICS.items():
        values = []
        for overlap in overlaps:
            by_category = [
                precision_at_recalls(
                    [
                        (matched[size, overlap], ignored[size, overlap])
                        for image, of, matched, ignored in detections
                        if of == category
                        for _ in range(counts[image])
                    ],
                    sum(
                        counts[image] * number[size]
                        for image, of, number in objects
                        if of == category
                    ),
                )
                for category in range(num_categories)
            ]
            values += np.array([entry for entry in by_category if entry is not None]).T.tolist()
        found[name] = 100 * np.array(values).mean() if values else -1.0
    return found


def precision_at_recalls(flags, num_objects):
    """Return precision at 101 recalls; None without objects."""
    if num_objects == 0:
        return None
    right = wrong = 0
    recalls, precisions = [], []
    for is_matched, is_ignored in flags:
        right += int(is_matched and not is_ignored)
        wrong += int(not is_matched and not is_ignored)
        recalls.append(right / num_objects)
        precisions.append(right / (wrong + right + np.spacing(1)))
    return [
        max((p for p, r in zip(precisions, recalls, strict=True) if r >= least), default=0.0)
        for least in np.linspace(0, 1, 101)
    ]
