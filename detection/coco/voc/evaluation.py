"""Add PASCAL VOC's average precision to COCO's metrics of the same detections."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from detection.coco.evaluation import Evaluation, Prediction
from detection.coco.voc.precision import VocAP, voc_precision

# Columns of ``VocAP`` over which each metric averages.
_AVERAGED_IOUS: dict[str, int | slice] = {"AP": slice(None), "AP50": 0, "AP75": 5}
VOC_METRICS = tuple(_AVERAGED_IOUS)
VOC_KINDS = ("voc", "voc_area")
"""VOC2007's average precision of eleven recalls, and that of 2010 and later, an area."""


def with_voc_metrics(
    evaluation: Evaluation, tree: Mapping[str, Any], predictions: Sequence[Prediction]
) -> Evaluation:
    """Add ``voc_AP``, ``voc_AP50``, ``voc_AP75`` and ``voc_area_AP`` … of boxes, also by category.

    The former are of VOC2007's eleven recalls, which detectron2 reports on VOC2007 as AP, AP50 and
    AP75; the latter of the area, as from VOC2010 on. AP is the mean over the IoU thresholds 0.50 to
    0.95; VOC itself uses 0.50 alone.

    Args:
        evaluation: COCO's metrics.
        tree: The annotation file's content.
        predictions: Detections with boxes and the file's own ids.
    """
    metrics = dict(evaluation.metrics)
    by_category = [dict(entry) for entry in evaluation.by_category]
    for kind, values in zip(VOC_KINDS, voc_precision(tree, predictions), strict=True):
        for name, columns in _AVERAGED_IOUS.items():
            metric = f"{kind}_{name}"
            value = _percent(values[:, columns])
            if value is not None:
                metrics[metric] = value
            for row, entry in enumerate(by_category):
                entry[metric] = _percent(values[row, columns])
    return replace(evaluation, metrics=metrics, by_category=by_category)


def _percent(values: VocAP) -> float | None:
    """Average over the categories with objects, in percent; None if there are none."""
    defined = values[~np.isnan(values)]
    return 100 * float(defined.mean()) if defined.size else None
