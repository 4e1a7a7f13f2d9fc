"""Audit records for comparability, by evaluator and data set; no image is read."""

import json
from collections.abc import Sequence

from rsa_eval.audit.baseline_checks import check_baselines
from rsa_eval.audit.entries import NamedRecord, show
from rsa_eval.audit.evaluation_checks import check_evaluations
from rsa_eval.audit.finding import FindingGroup
from rsa_eval.audit.image_checks import check_image_sets, image_facts
from rsa_eval.audit.pretraining_checks import check_pretraining

_CHECKS = (check_image_sets, check_evaluations, check_pretraining, check_baselines)
_OWN_IMAGES = frozenset({"imagefolder", "webdataset"})


def compare_records(entries: Sequence[NamedRecord]) -> list[FindingGroup]:
    """List what makes comparisons unfair, for each evaluator, data set and subset of labels.

    Args:
        entries: Records, oldest first.
    """
    tables: dict[tuple[str, str, str], list[NamedRecord]] = {}
    for entry, images in zip(entries, _image_sets(entries), strict=True):
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


def _image_sets(entries: Sequence[NamedRecord]) -> list[str]:
    """Name each record's images; folders of the user's own that share a path or a content are one.

    Two folders of images are both called ``imagefolder``, and nobody compares across them.
    """
    names: list[str] = []
    places: dict[str, str] = {}
    for entry in entries:
        record = entry.record
        name = record.data_set
        if name in _OWN_IMAGES:
            root = str(record.config.get("data", {}).get("root"))
            facts = image_facts(entry, "test")
            marks = [root, *([] if facts is None else [facts["sha256"]])]
            place = next((places[mark] for mark in marks if mark in places), root)
            places |= dict.fromkeys(marks, place)
            name = f"{name} {place}"
        names.append(name)
    return names


def _of_labels(subset: str) -> str:
    if not subset:
        return ""
    labels, seed = json.loads(subset)
    return f", labels {show(labels)}, draw {show(seed)}"
