"""Audit records for comparability, by evaluator and data set; no image is read."""

from collections.abc import Sequence

from rsa_eval.audit.baseline_checks import check_baselines
from rsa_eval.audit.entries import NamedRecord
from rsa_eval.audit.evaluation_checks import check_evaluations
from rsa_eval.audit.finding import FindingGroup
from rsa_eval.audit.image_checks import check_image_sets
from rsa_eval.audit.pretraining_checks import check_pretraining

_CHECKS = (check_image_sets, check_evaluations, check_pretraining, check_baselines)


def compare_records(entries: Sequence[NamedRecord]) -> list[FindingGroup]:
    """List what makes comparisons unfair, for each evaluator and data set.

    Args:
        entries: Records, oldest first.
    """
    tables: dict[tuple[str, str], list[NamedRecord]] = {}
    for entry in entries:
        tables.setdefault((entry.record.kind, entry.record.data_set), []).append(entry)
    return [
        FindingGroup.of(
            f"{kind} on {data_set}",
            [entry.name for entry in own],
            [finding for check in _CHECKS for finding in check(own)],
        )
        for (kind, data_set), own in sorted(tables.items())
    ]
