"""Turn a run's log into short lists of points for the page to draw."""

from collections.abc import Sequence
from typing import Any

from rsa_eval.report.curves import CURVE_PANELS, curve_points, matching_keys

_MOST_POINTS = 500
_MOST_CURVES = 40
_AXES = ("step", "epoch")
# Shown at once; the others when the reader asks for more.
_MAIN = ("loss", "knn_top1", "bbox_AP", "segm_AP", "rankme", "lr", "projection_std", "grad_norm")
_RANKS = {key: rank for rank, key in enumerate(_MAIN)}


def list_curves(metrics: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return every logged quantity, the main ones first, then those that a report plots.

    Args:
        metrics: Lines of a ``metrics.jsonl``.

    Returns:
        For each of at most 40 quantities its ``key`` and ``title``, its ``rank`` among the main
        ones or None, and at most 501 ``steps`` with their ``values``, to six digits.
    """
    titles = {
        key: panel.title if key in panel.keys else _title(key)
        for panel in CURVE_PANELS
        for key in matching_keys(metrics, panel)
    }
    for key in dict.fromkeys(name for line in metrics for name in line if name not in _AXES):
        titles.setdefault(key, _title(key))
    curves: list[dict[str, Any]] = []
    for key in [*filter(titles.__contains__, _MAIN), *(key for key in titles if key not in _MAIN)]:
        points = curve_points(metrics, key, _MOST_POINTS)
        if points and len(curves) < _MOST_CURVES:
            steps, values = zip(*points, strict=True)
            rounded = [float(f"{value:.6g}") for value in values]
            facts = {"key": key, "title": titles[key], "rank": _RANKS.get(key)}
            curves.append(facts | {"steps": steps, "values": rounded})
    return curves


def _title(key: str) -> str:
    return key.replace("_", " ")[:80]
