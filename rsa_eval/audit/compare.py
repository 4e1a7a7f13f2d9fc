"""Audit records for comparability, by evaluator and data set; no image is read."""

import json
from collections.abc import Sequence

from rsa_eval.audit.baseline_checks import check_baselines
from rsa_eval.audit.entries import NamedRecord, show
from rsa_eval.audit.evaluation_checks import check_evaluations
from rsa_eval.audit.finding import FindingGroup
from rsa_eval.audit.image_checks import check_image_sets
from rsa_eval.audit.pretraining_checks import check_pretraining
from rsa_eval.records.image_sets import name_image_sets

_CHECKS = (check_image_sets, check_evaluations, check_pretraining, check_baselines)


def compare_records(entries: Sequence[NamedRecord]) -> list[FindingGroup]:
    """List what makes comparisons unfair, for each evaluator, data set and subset of labels.

    Args:
        entries: Records, oldest first.
    """
    tables: dict[tuple[str, str, str], list[NamedRecord]] = {}
    image_sets = name_image_sets([entry.record for entry in entries])
    for entry, images in zip(entries, image_sets, strict=True):
        record = entry.record
        subset = [record.config.get(key) for key in ("subset", "subset_seed")]
        key = (record.kind, images, "" if subset[0] is None else json.dumps(subset, default=str))
        tables.setdefault(key, []).append(entry)
    return [
        FindingGroup.of(
            f"{kind} on {images}{_of_labels(subset)}",
            [entry.name for entry in own],
            [finding for check in _CHECKS for finding in check(own)],
        )
        for (kind, images, subset), own in sorted(tables.items())
    ]


def _of_labels(subset: str) -> str:
    if not subset:
        return ""
    labels, seed = json.loads(subset)
    return f", labels {show(labels)}, draw {show(seed)}"
