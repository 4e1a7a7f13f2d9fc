"""Describe leaks as findings: how many images, and how much they change each accuracy."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rsa_eval.audit.duplicates import num_exact
from rsa_eval.audit.entries import NamedRecord, list_names
from rsa_eval.audit.finding import Finding, FindingGroup, Severity
from rsa_eval.audit.leaks import Leak, LeakSearch
from rsa_eval.records.predictions import read_predictions
from rsa_pretrain.plumbing.errors import UserError

_MOST_ACCURACIES = 5
_OF_SOME_LABELS = frozenset({"low-shot", "finetune"})


@dataclass(frozen=True)
class CleanAccuracy:
    """A record's headline with and without the leaked images, in percent."""

    record: str
    metric: str
    every: float
    """On all images."""
    clean: float | None
    """On the images without a duplicate; None if there are none."""
    leaked: float
    """On the images with a duplicate."""
    num_leaked: int

    @property
    def text(self) -> str:
        """The numbers in one phrase."""
        clean = "–" if self.clean is None else f"{self.clean:.2f}"
        return (
            f"{self.record} {self.metric} {self.every:.2f} on all, {clean} without the "
            f"{self.num_leaked:,} images, {self.leaked:.2f} on them"
        )


def leak_group(search: LeakSearch, entries: Sequence[NamedRecord]) -> FindingGroup:
    """Return all findings about images, as one group.

    Args:
        search: Result of the search.
        entries: All records.
    """
    findings = [_describe(leak, search.leaks, entries) for leak in search.leaks]
    findings += [
        Finding(
            "caution",
            "not checked",
            f"not checked in {list_names(some, entries)}: {reason}",
            "name their folder with --data-root, or check them where they are",
        )
        for reason, some in search.unchecked.items()
    ]
    findings += [
        Finding("note", "checked in part", limit, "judge the page of duplicates by eye, too")
        for limit in search.limits
    ]
    return FindingGroup.of("images", [], [found for found in findings if found is not None])


def _describe(leak: Leak, leaks: Sequence[Leak], entries: Sequence[NamedRecord]) -> Finding | None:
    if not leak.duplicates:
        return None
    number, exact = len(leak.duplicates), num_exact(leak.duplicates)
    share = f"{number:,} of {len(leak.test):,} test images of {leak.test.name}"
    kinds = f"{exact:,} exactly, {number - exact:,} nearly"
    if leak.is_within:
        return Finding(
            "caution",
            "repeated test images",
            f"{share} repeat another test image ({kinds}): what they show counts twice",
            "remove the repetitions, or state their number",
        )
    names = list_names(leak.entries, entries)
    accuracies = clean_accuracies(leak)
    numbers = "".join(f"; {own.text}" for own in accuracies[:_MOST_ACCURACIES])
    if any(entry.record.kind in _OF_SOME_LABELS for entry in leak.entries):
        names += ", whose classifiers of few labels saw only some of them"
    if len(accuracies) > _MOST_ACCURACIES:
        numbers += f"; and {len(accuracies) - _MOST_ACCURACIES} more records"
    return Finding(
        _severity(leak, leaks),
        "leaked test images",
        f"{share} are among the {len(leak.bank):,} {leak.bank_name} ({kinds}) of {names}{numbers}",
        "report the accuracy without them; --out FILE.html shows the pairs",
    )


def _severity(leak: Leak, leaks: Sequence[Leak]) -> Severity:
    """Return unfair if only some of the records that are compared saw the leaked images.

    Those whose training images could not be opened are listed as not checked.
    """
    leaked = {found.row for found in leak.duplicates}
    related = [own for own in leaks if own.test is leak.test]
    kinds = {entry.record.kind for entry in leak.entries}
    rivals = {
        entry.path
        for own in related
        if not own.is_within
        for entry in own.entries
        if entry.record.kind in kinds
    }
    for rival in rivals:
        seen: set[int] = set()
        for own in related:
            if not own.is_within and any(entry.path == rival for entry in own.entries):
                seen |= {found.row for found in own.duplicates}
        if not leaked <= seen:
            return "unfair"
    return "caution"


def clean_accuracies(leak: Leak) -> list[CleanAccuracy]:
    """Return the headline of each record that keeps its answers, with and without the leak."""
    keys = leak.test.keys()
    leaked = {keys[found.row] for found in leak.duplicates}
    found = []
    for entry in leak.entries:
        own = _accuracy(entry, leaked)
        if own is not None:
            found.append(own)
    return found


def _accuracy(entry: NamedRecord, leaked: set[str]) -> CleanAccuracy | None:
    try:
        kept = read_predictions(entry.path, entry.record)
    except UserError:  # named by the comparison of the records
        return None
    metric = entry.record.headline
    scores = kept.predictions.per_image(metric)
    is_leaked = np.array([key in leaked for key in kept.keys], np.bool_)
    if scores is None or not is_leaked.any():
        return None
    values: npt.NDArray[np.float64] = np.asarray(scores, np.float64)
    return CleanAccuracy(
        record=f"{entry.name} ({entry.record.kind})",
        metric=metric,
        every=float(values.mean()),
        clean=None if is_leaked.all() else float(values[~is_leaked].mean()),
        leaked=float(values[is_leaked].mean()),
        num_leaked=int(is_leaked.sum()),
    )
