"""Compare all models of a table pair by pair: differences, and those that are shown."""

from dataclasses import dataclass
from itertools import combinations

from rsa_eval.report.tables import Table, TableRow
from rsa_eval.statistics.intervals import Interval
from rsa_eval.verdicts.answers import load_scores
from rsa_eval.verdicts.compare import Decision, Verdict, decide
from rsa_eval.verdicts.difference import estimate_difference
from rsa_eval.verdicts.sides import one_trial_per_network
from rsa_eval.verdicts.words import bounds, p_text, signed
from rsa_pretrain.plumbing.errors import UserError

MATRIX_CAPTION = (
    "Row minus column in {metric}, points; marked where the difference is shown: p at most 0.05 "
    "after Holm's adjustment for all pairs of the table, and a 95 % interval without 0. * is over "
    "seeds and images, for several seeds of both models; † is over images alone, so that other "
    "seeds may differ. Rows with other footnotes also differ in how they were evaluated."
)
_MOST_MODELS = 30
_TURNED: dict[Decision, Decision] = {"better": "worse", "worse": "better"}


@dataclass(frozen=True)
class MatrixCell:
    """The difference of one pair of models."""

    value: float
    decision: Decision
    """Of the row's model."""
    over_seeds: bool
    """True if several seeds of both were compared; else the decision is over images alone."""
    evidence: str
    """Interval, test and p-value."""

    @property
    def text(self) -> str:
        """The difference, marked if it is shown."""
        mark = "*" if self.over_seeds else "†"
        return signed(self.value) + (mark if self.decision in _TURNED else "")


@dataclass(frozen=True)
class MatrixRow:
    """One model beside all others."""

    name: str
    detail: str
    mean: float
    cells: tuple[MatrixCell | None, ...]
    """By column; None beside itself, and for a pair that cannot be compared."""


@dataclass(frozen=True)
class PairMatrix:
    """All pairs of a table's models."""

    metric: str
    rows: tuple[MatrixRow, ...]
    reason: str
    """Reason why a pair is not compared; empty if all are."""


def build_matrix(table: Table) -> PairMatrix | None:
    """Compare the models of a table in its headline.

    Returns:
        None for a single model or another unit than percent; a matrix without rows if no pair can
        be compared.
    """
    rows = [row for row in table.rows if row.headline is not None and row.headline.unit == "%"]
    if len(rows) < 2:
        return None
    metric = rows[0].group.first.headline
    if len(rows) > _MOST_MODELS:
        return PairMatrix(
            metric, (), f"{len(rows)} models, of which at most {_MOST_MODELS} are shown"
        )
    reasons: dict[str, None] = {}
    verdicts = _verdicts(rows, metric, reasons)
    return PairMatrix(metric, _rows(rows, verdicts) if verdicts else (), next(iter(reasons), ""))


def _verdicts(
    rows: list[TableRow], metric: str, reasons: dict[str, None]
) -> dict[tuple[int, int], Verdict]:
    """Compare the pairs that can be, each once, and decide all together; add reasons of others."""
    found: dict[tuple[int, int], Verdict] = {}
    for pair in combinations(range(len(rows)), 2):
        groups = [one_trial_per_network(rows[place].group) for place in pair]
        try:
            ours, theirs = load_scores(groups, metric)
        except UserError as error:
            reasons[str(error)] = None
            continue
        if ours[0].predictions is None and min(len(ours), len(theirs)) < 2:
            reasons["some records keep no answers by image; evaluate them again"] = None
            continue
        difference = estimate_difference(ours, theirs, metric)
        labels = (groups[0].labels, groups[1].labels)
        found[pair] = Verdict.undecided("", metric, labels, difference)
    return dict(zip(found, decide(list(found.values())), strict=True))


def _rows(rows: list[TableRow], verdicts: dict[tuple[int, int], Verdict]) -> tuple[MatrixRow, ...]:
    cells: dict[tuple[int, int], MatrixCell] = {}
    for (first, second), verdict in verdicts.items():
        difference, decision = verdict.difference, verdict.decision
        interval, has_seeds = difference.interval, difference.seeds is not None
        turned = Interval(-interval.high, -interval.low)
        cells[first, second] = MatrixCell(
            difference.value, decision, has_seeds, _evidence(verdict, interval)
        )
        cells[second, first] = MatrixCell(
            -difference.value,
            _TURNED.get(decision, decision),
            has_seeds,
            _evidence(verdict, turned),
        )
    return tuple(
        MatrixRow(
            name=row.name,
            detail=row.detail,
            mean=row.headline.mean if row.headline is not None else 0.0,
            cells=tuple(cells.get((number, other)) for other in range(len(rows))),
        )
        for number, row in enumerate(rows)
    )


def _evidence(verdict: Verdict, interval: Interval) -> str:
    p = p_text(verdict.adjusted_p)
    return f"95 % interval {bounds(interval)}; {verdict.difference.test}, adjusted p {p}"
