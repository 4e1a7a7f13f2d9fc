"""The study: every row's accuracies over its seeds, what they took, and the course of training."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from rsa_eval.ledger.cost import Cost
from rsa_eval.ledger.markdown import LINE_BREAK, NOT_YET, NOTHING, footnotes, marks, table
from rsa_eval.ledger.measured import Measured, command_of, seeds_of
from rsa_eval.ledger.timing import relative_to_byol
from rsa_eval.published import METHODS
from rsa_eval.record import Record
from rsa_eval.report.escaping import escape_markdown
from rsa_eval.report.groups import Group, format_number, group_records, shared_training
from rsa_eval.report.inputs import trials_folder
from rsa_eval.report.tables import EVALUATORS
from rsa_eval.report.timing import Timing
from rsa_eval.reproduction.rows import Pretraining, Row
from rsa_pretrain.config_files import to_tree

_SEEDS = "Behind each mean stand the numbers of the seeds, in their order."
_COURSE = """\
The course of training, mean over seeds: top-1 (%) of kNN on training images held out, by epoch, and
the loss over the first and the last logged interval. Losses of two methods do not compare."""


@dataclass(frozen=True)
class _Column:
    """One evaluation of all rows."""

    kind: str
    protocol: str
    headline: str
    unit: str
    deviations: tuple[str, ...]

    @classmethod
    def of(cls, record: Record) -> Self:
        return cls(
            kind=record.kind,
            protocol=record.protocol,
            headline=record.headline,
            unit=record.metrics[record.headline].unit,
            deviations=tuple(record.deviations),
        )


@dataclass(frozen=True)
class _Result:
    """One row with what was measured."""

    row: Row
    groups: Sequence[Group]
    timings: Sequence[Timing]
    """Of its runs."""

    def in_column(self, column: _Column) -> list[Group]:
        return [group for group in self.groups if _Column.of(group.first) == column]


def study_tables(measured: Measured) -> str:
    """Draw the study's results, and behind them the course of training."""
    rows = sorted(measured.rows_of(None), key=_order)
    results = [_result(row, measured) for row in rows]
    columns = _columns([group.first for result in results for group in result.groups])
    notes = list(dict.fromkeys(text for column in columns for text in column.deviations))
    for result in results:
        for group in result.groups:
            notes += [text for text in _changes(group, result.row) if text not in notes]
    headings = [_heading(column, notes) for column in columns] or ["measured"]
    drawn = table(
        ("row", *headings, "seeds", "hours", "× BYOL", "hardware", "command"),
        [_line(result, columns, notes, measured) for result in results],
        headings,
    )
    parts = [_SEEDS, drawn]
    if notes:
        parts += [
            "Departures from the protocols and the configs:",
            footnotes(list(map(escape_markdown, notes))),
        ]
    timed = [result for result in results if result.timings]
    if timed:
        parts += [_COURSE, _course(timed, measured)]
    return "\n\n".join(parts)


def lies_in(path: Path, row: Row, measured: Measured) -> bool:
    """Whether a record's file is of a trial of a row."""
    return trials_folder(path.parent.parent) == measured.results / row.home


def _order(row: Row) -> tuple[int, str]:
    """Take rows by method, random weights last."""
    methods = list(METHODS)
    if not isinstance(row.work, Pretraining) or not row.work.trained:
        return len(methods), row.label
    return methods.index(row.work.recipe.config.method.name), row.label


def _result(row: Row, measured: Measured) -> _Result:
    records = [found for found in measured.records if lies_in(found[0], row, measured)]
    return _Result(row, group_records(records), measured.timings_of(row))


def _columns(records: Sequence[Record]) -> list[_Column]:
    kinds = list(EVALUATORS)
    return sorted(
        {_Column.of(record) for record in records},
        key=lambda column: (kinds.index(column.kind), column.protocol, column.deviations),
    )


def _heading(column: _Column, notes: Sequence[str]) -> str:
    title = f"{EVALUATORS[column.kind]} {column.protocol}, {column.headline} ({column.unit})"
    return escape_markdown(title) + marks([notes.index(text) + 1 for text in column.deviations])


def _changes(group: Group, row: Row) -> list[str]:
    """List how the weights depart from those that a row's config makes."""
    assert isinstance(row.work, Pretraining)
    model = group.first.model
    is_random = model.checkpoint is None
    if is_random == row.work.trained:
        return ["the weights are random" if is_random else "the weights are trained"]
    if is_random:
        return []
    if model.pretraining is None:
        return ["the settings of training are not recorded"]
    expected = shared_training(to_tree(row.work.recipe.config))
    return [
        f"training: {key} {value} (config: {expected.get(key)})"
        for key, value in shared_training(model.pretraining).items()
        if value != expected.get(key)
    ]


def _line(
    result: _Result, columns: Sequence[_Column], notes: Sequence[str], measured: Measured
) -> list[str]:
    cells = [_cell(result, column, notes) for column in columns] or [NOT_YET]
    cost = Cost.of(result.groups, measured.timings) if result.groups else None
    return [
        measured.name(result.row),
        *cells,
        ", ".join(map(str, seeds_of(result.groups))) or NOTHING,
        NOTHING if cost is None else cost.hours,
        relative_to_byol(result.timings) or NOTHING,
        NOTHING if cost is None else cost.hardware,
        command_of(result.row, result.groups),
    ]


def _cell(result: _Result, column: _Column, notes: Sequence[str]) -> str:
    """Write mean ± std and each trial; trials that differ in more than seeds stand apart."""
    groups = result.in_column(column)
    whole = len(groups) == 1 and len(groups[0].records) == len(seeds_of(result.groups))
    numbers = [
        _number(group, whole, [notes.index(text) + 1 for text in _changes(group, result.row)])
        for group in groups
    ]
    return LINE_BREAK.join(numbers) or NOT_YET


def _number(group: Group, whole: bool, places: Sequence[int]) -> str:
    """Name the seeds of each value unless it is one per seed of the row."""
    found = group.headline
    if found is None:
        return NOTHING
    values = ", ".join(format_number(value, found.unit) for value in found.values)
    trials = values if whole else found.trials
    number = f"**{found.text}**{marks(places)}"
    return number + (f" ({trials})" if len(found.values) > 1 or not whole else "")


def _course(results: Sequence[_Result], measured: Measured) -> str:
    """Draw a row per method, a column per epoch at which kNN was measured."""
    accuracies = {
        result.row.name: _means_by_epoch(result.timings, "knn_top1") for result in results
    }
    epochs = sorted({epoch for by_epoch in accuracies.values() for epoch in by_epoch})
    columns = ["row", *(f"epoch {epoch:g}" for epoch in epochs), "loss, first", "loss, last"]
    rows = []
    for result in results:
        found = accuracies[result.row.name]
        numbers = [found.get(epoch) for epoch in epochs]
        losses = _means_by_epoch(result.timings, "loss")
        first_and_last = [losses[min(losses)], losses[max(losses)]] if losses else [None, None]
        rows.append(
            [
                measured.name(result.row),
                *(NOTHING if number is None else f"{number:.2f}" for number in numbers),
                *(NOTHING if loss is None else f"{loss:.3f}" for loss in first_and_last),
            ]
        )
    return table(columns, rows, columns[1:])


def _means_by_epoch(timings: Sequence[Timing], name: str) -> dict[float, float]:
    """Return the mean over the runs of a metric, by the epochs at which all of them have it."""
    values: dict[float, list[float]] = {}
    for timing in timings:
        for line in timing.run.metrics:
            epoch, value = line.get("epoch"), line.get(name)
            if isinstance(epoch, int | float) and isinstance(value, int | float):
                values.setdefault(float(epoch), []).append(float(value))
    whole = {epoch: found for epoch, found in values.items() if len(found) == len(timings)}
    return {epoch: statistics.fmean(whole[epoch]) for epoch in sorted(whole)}
