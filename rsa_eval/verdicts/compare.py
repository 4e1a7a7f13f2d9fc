"""Compare two models in every evaluation that both have, and decide."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, Self

from rsa_eval.records.identity import weights_seed
from rsa_eval.records.image_sets import annotations_differ
from rsa_eval.records.record import Record
from rsa_eval.statistics.intervals import LEVEL
from rsa_eval.statistics.paired import holm
from rsa_eval.statistics.power import Needed
from rsa_eval.verdicts.answers import MetricMissing, load_scores
from rsa_eval.verdicts.difference import Difference, estimate_difference
from rsa_eval.verdicts.sides import Contender, SharedEvaluation, shared_evaluations
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.name_lists import first_of

Decision = Literal["better", "worse", "no difference shown", "equivalent"]

_ALPHA = 1 - LEVEL


@dataclass(frozen=True)
class Verdict:
    """The comparison of two models in one evaluation."""

    title: str
    """Evaluator and data set."""
    metric: str
    seeds: tuple[tuple[str, ...], tuple[str, ...]]
    """Seeds of each side's trials."""
    difference: Difference
    adjusted_p: float
    """By Holm, for the number of evaluations compared."""
    adjusted_equivalence_p: float | None
    decision: Decision
    """Of the first model."""
    notes: tuple[str, ...]
    """Settings and training annotations that differ."""
    needed: Needed | None
    """Sizes that would settle it; None in a table of many pairs."""

    @classmethod
    def undecided(
        cls,
        title: str,
        metric: str,
        seeds: tuple[tuple[str, ...], tuple[str, ...]],
        difference: Difference,
        notes: tuple[str, ...] = (),
        needed: Needed | None = None,
    ) -> Self:
        """Return a verdict for ``decide``, which needs all that are decided together."""
        return cls(
            title=title,
            metric=metric,
            seeds=seeds,
            difference=difference,
            adjusted_p=difference.p,
            adjusted_equivalence_p=difference.equivalence_p,
            decision="no difference shown",
            notes=notes,
            needed=needed,
        )


@dataclass(frozen=True)
class Comparison:
    """Two models compared in all evaluations that both have."""

    first: str
    second: str
    margin: float | None
    verdicts: tuple[Verdict, ...]
    left_out: tuple[str, ...]
    """Evaluations that could not be compared, with the reason."""


def compare_sides(
    first: Contender,
    second: Contender,
    *,
    metric: str | None = None,
    margin: float | None = None,
    is_paired: bool = False,
) -> Comparison:
    """Compare two models.

    Args:
        first: One or several trials of the first model.
        second: Of the second.
        metric: Metric to compare; None takes each evaluation's headline.
        margin: Difference in points that does not matter; asks for equivalence.
        is_paired: Compare trials of equal seeds.

    Raises:
        UserError: If no evaluation can be compared, test images differ, or seeds do not pair.
    """
    pairs, left_out = shared_evaluations(first, second)
    verdicts: list[Verdict] = []
    titles = Counter(pair.title for pair in pairs)
    for pair in pairs:
        name = metric or _headline(pair)
        reason = _obstacle(pair, name)
        if reason is None:
            try:
                if is_paired:
                    pair = _paired_by_seed(pair)
                ours, theirs = load_scores((pair.first, pair.second), name)
            except MetricMissing as error:
                reason = str(error)
        if reason is not None:
            left_out.append(f"{pair.title}: {reason}")
            continue
        difference = estimate_difference(
            ours,
            theirs,
            name,
            is_paired=is_paired,
            margin=margin,
        )
        needed = difference.design.needed(difference.value)
        labels = (pair.first.labels, pair.second.labels)
        title = pair.title if titles[pair.title] == 1 else f"{pair.title} ({pair.protocol})"
        notes = [f"settings differ: {text}" for text in pair.differing_settings]
        if annotations_differ(pair.first.first, pair.second.first, "train"):
            notes.append("trained on annotations of different content, as their SHA-256 tells")
        verdicts.append(Verdict.undecided(title, name, labels, difference, tuple(notes), needed))
    if not verdicts:
        raise UserError(f"nothing can be compared: {first_of(left_out)}")
    return Comparison(first.name, second.name, margin, tuple(decide(verdicts)), tuple(left_out))


def decide(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """Adjust the p-values for their number and decide each.

    The chance that any difference is called shown by error is at most 5 %, and so is, apart from
    it, the chance that any equivalence is.
    """
    if not verdicts:
        return []
    adjusted = holm([verdict.difference.p for verdict in verdicts])
    margins = [verdict.difference.equivalence_p for verdict in verdicts]
    asked = [p for p in margins if p is not None]
    equivalence = iter(holm(asked))
    decided = []
    for verdict, p, own in zip(verdicts, adjusted, margins, strict=True):
        equivalent = None if own is None else next(equivalence)
        decided.append(
            replace(
                verdict,
                adjusted_p=p,
                adjusted_equivalence_p=equivalent,
                decision=_decision(verdict.difference, p, equivalent),
            )
        )
    return decided


def _decision(difference: Difference, p: float, equivalence_p: float | None) -> Decision:
    if equivalence_p is not None and equivalence_p <= _ALPHA:
        return "equivalent"
    if p > _ALPHA or not difference.interval.excludes(0):
        return "no difference shown"
    return "better" if difference.value > 0 else "worse"


def _headline(pair: SharedEvaluation) -> str:
    """Return a headline that both sides have, such as AP of boxes if only one has masks."""
    records = pair.first.first, pair.second.first
    shared = [own.headline for own in records if all(own.headline in r.metrics for r in records)]
    return shared[0] if shared else records[0].headline


def _obstacle(pair: SharedEvaluation, metric: str) -> str | None:
    """Return why an evaluation cannot be compared by a metric; None if it can."""
    for record in (*pair.first.records, *pair.second.records):
        known = record.metrics.get(metric)
        if known is not None and known.unit != "%":
            return f"{metric} is in {known.unit}, and only percentages are compared"
    without = [
        path
        for group in (pair.first, pair.second)
        for path, record in zip(group.paths, group.records, strict=True)
        if record.predictions is None
    ]
    if without and min(len(pair.first.records), len(pair.second.records)) < 2:
        return (
            f"'{without[0]}' keeps no answers by image, as older records; evaluate again, or give "
            "several seeds of both models"
        )
    return None


def _paired_by_seed(pair: SharedEvaluation) -> SharedEvaluation:
    """Order the trials of both sides by seed, which both must have alike."""
    if min(len(pair.first.records), len(pair.second.records)) < 2:
        raise UserError(
            f"{pair.title}: trials are compared by seed, and a side has a single one; leave out "
            "--paired, or add seeds"
        )
    ours, theirs = (
        {_seed_of(record): place for place, record in enumerate(group.records)}
        for group in (pair.first, pair.second)
    )
    trials = pair.first.records, pair.second.records
    if ours.keys() != theirs.keys() or not len(ours) == len(trials[0]) == len(trials[1]):
        raise UserError(
            f"{pair.title}: trials are compared by seed, and the sides have seeds "
            f"{', '.join(map(str, sorted(ours)))} and {', '.join(map(str, sorted(theirs)))}; "
            "leave out --paired, or add the missing seeds"
        )
    first, second = (
        replace(
            group,
            records=tuple(group.records[places[seed]] for seed in sorted(places)),
            paths=tuple(group.paths[places[seed]] for seed in sorted(places)),
        )
        for group, places in ((pair.first, ours), (pair.second, theirs))
    )
    return replace(pair, first=first, second=second)


def _seed_of(record: Record) -> int:
    seed = weights_seed(record)
    return record.seeds[0] if seed is None else seed
