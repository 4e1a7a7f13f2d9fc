"""Mask R-CNN's arithmetic with a feature pyramid, one box and one pixel at a time.

Written from He et al. 2017, Lin et al. 2017, Ren et al. 2015 and the settings that detectron2
documents, in plain Python and without torchvision. Boxes are x0, y0, x1, y1.
"""

import math

STRIDES = (4, 8, 16, 32, 64)
SIZES = (32, 64, 128, 256, 512)
RATIOS = (0.5, 1.0, 2.0)


def anchors(level, height, width):
    """Every anchor of a level, row by row."""
    found = []
    for row in range(height):
        for column in range(width):
            for ratio in RATIOS:
                w = math.sqrt(SIZES[level] ** 2 / ratio)
                h = ratio * w
                x, y = column * STRIDES[level], row * STRIDES[level]
                found.append((x - w / 2, y - h / 2, x + w / 2, y + h / 2))
    return found


def decode(box, move, weights):
    """Move and stretch a box as predicted."""
    w, h = box[2] - box[0], box[3] - box[1]
    dx, dy, dw, dh = (m / weight for m, weight in zip(move, weights, strict=True))
    x, y = box[0] + w / 2 + dx * w, box[1] + h / 2 + dy * h
    limit = math.log(1000 / 16)
    w, h = w * math.exp(min(dw, limit)), h * math.exp(min(dh, limit))
    return (x - w / 2, y - h / 2, x + w / 2, y + h / 2)


def clip(box, size):
    """Cut a box at the image's borders; size is (height, width)."""
    height, width = size
    limits = (width, height, width, height)
    return tuple(min(max(value, 0.0), limit) for value, limit in zip(box, limits, strict=True))


def iou(first, second):
    """Intersection over union."""
    w = min(first[2], second[2]) - max(first[0], second[0])
    h = min(first[3], second[3]) - max(first[1], second[1])
    if w <= 0 or h <= 0:
        return 0.0
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (first, second)]
    return w * h / (sum(areas) - w * h)


def suppress(candidates, threshold):
    """Keep, best first, what overlaps no better one of its group: (score, group, box, …)."""
    kept = []
    for candidate in sorted(candidates, key=lambda entry: -entry[0]):
        rivals = [entry for entry in kept if entry[1] == candidate[1]]
        if all(iou(entry[2], candidate[2]) <= threshold for entry in rivals):
            kept.append(candidate)
    return kept


def proposals(levels, size, pre_nms, post_nms):
    """Boxes of one image: levels of (logit, move, anchor), thinned per level at IoU 0.7."""
    candidates = []
    for level, entries in enumerate(levels):
        best = sorted(entries, key=lambda entry: -entry[0])[:pre_nms]
        for logit, move, anchor in best:
            box = clip(decode(anchor, move, (1, 1, 1, 1)), size)
            if box[2] > box[0] and box[3] > box[1]:
                candidates.append((logit, level, box))
    return [box for _, _, box in suppress(candidates, 0.7)[:post_nms]]


def detections(regions, size, most):
    """(score, label, box) of one image from (logits, moves by class, box), background first."""
    candidates = []
    for logits, moves, box in regions:
        total = sum(math.exp(logit) for logit in logits)
        for label in range(1, len(logits)):
            score = math.exp(logits[label]) / total
            if score > 0.05:
                moved = decode(box, moves[label], (10, 10, 5, 5))
                candidates.append((score, label, clip(moved, size)))
    return suppress(candidates, 0.5)[:most]


def level_of(box):
    """Lin et al., Eq. (1), as an index of STRIDES."""
    side = math.sqrt((box[2] - box[0]) * (box[3] - box[1]))
    return min(max(math.floor(4 + math.log2(side / 224)), 2), 5) - 2


def bilinear(rows, y, x):
    """Read a map at a position; its cells' centres are whole numbers; far outside it is 0."""
    height, width = len(rows), len(rows[0])
    if not (-1 <= y <= height and -1 <= x <= width):
        return 0.0
    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    top, left = min(int(y), height - 1), min(int(x), width - 1)
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    fy, fx = y - top, x - left
    upper = rows[top][left] * (1 - fx) + rows[top][right] * fx
    lower = rows[bottom][left] * (1 - fx) + rows[bottom][right] * fx
    return upper * (1 - fy) + lower * fy


def roi_align(rows, box, stride, side):
    """Aligned RoIAlign of one channel: the mean of a bin's samples, as many as it has cells."""
    x0, y0, x1, y1 = (value / stride - 0.5 for value in box)
    bin_height, bin_width = (y1 - y0) / side, (x1 - x0) / side
    num_y, num_x = math.ceil(bin_height), math.ceil(bin_width)
    return [
        [
            sum(
                bilinear(
                    rows,
                    y0 + (i + (a + 0.5) / num_y) * bin_height,
                    x0 + (j + (b + 0.5) / num_x) * bin_width,
                )
                for a in range(num_y)
                for b in range(num_x)
            )
            / (num_y * num_x)
            for j in range(side)
        ]
        for i in range(side)
    ]


def paste(mask, box, size):
    """Pixels where a mask stretched over its box, 0 outside, is at least one half."""
    height, width = size
    side = len(mask)
    padded = [[0.0] * (side + 2), *([0.0, *row, 0.0] for row in mask), [0.0] * (side + 2)]

    def value(y, x):
        v = (y - box[1]) / (box[3] - box[1]) * side + 0.5
        u = (x - box[0]) / (box[2] - box[0]) * side + 0.5
        if not (0 <= v <= side + 1 and 0 <= u <= side + 1):
            return 0.0
        return bilinear(padded, v, u)

    return [[value(y + 0.5, x + 0.5) >= 0.5 for x in range(width)] for y in range(height)]


def cross_entropy(logits, label):
    """Of one sample, in nats."""
    return math.log(sum(math.exp(logit) for logit in logits)) - logits[label]


def binary_cross_entropy(logit, is_true):
    """Of one sample, in nats."""
    return math.log1p(math.exp(-logit if is_true else logit))


def proposal_losses(anchors, budget):
    """(objectness, boxes) of sampled anchors (logit, is_object, move, target)."""
    objectness = sum(binary_cross_entropy(logit, is_object) for logit, is_object, _, _ in anchors)
    boxes = sum(
        abs(m - t)
        for _, is_object, move, target in anchors
        for m, t in zip(move, target, strict=True)
        if is_object
    )
    return objectness / budget, boxes / budget


def box_losses(regions):
    """(classes, boxes) of sampled regions (logits, label, moves by class, target)."""
    classes = sum(cross_entropy(logits, label) for logits, label, _, _ in regions)
    boxes = sum(
        abs(m - t)
        for _, label, moves, target in regions
        for m, t in zip(moves[label], target, strict=True)
        if label > 0
    )
    return classes / len(regions), boxes / len(regions)


def mask_loss(objects):
    """Of objects (masks by class, label, target)."""
    cells = [
        binary_cross_entropy(logit, is_inside)
        for masks, label, target in objects
        for row, wanted in zip(masks[label], target, strict=True)
        for logit, is_inside in zip(row, wanted, strict=True)
    ]
    return sum(cells) / len(cells)
