"""Summarise a report: its extent, and the best model of each table."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rsa_eval.report.paper_tables import PaperTable
from rsa_eval.report.tables import Table, TableRow

_WITHOUT_A_BEST = frozenset({"diagnostics"})


@dataclass(frozen=True)
class BestModel:
    """The best model of one table."""

    table: Table
    row: TableRow
    num_models: int
    """Number of models compared, without random weights."""

    @property
    def metric(self) -> str:
        """The headline's name."""
        return self.row.group.first.headline


def find_best(tables: Sequence[Table]) -> list[BestModel]:
    """Return the model with the highest headline in each table whose headline is a percentage."""
    return list(_best(tables))


def describe_extent(tables: Sequence[Table], num_records: int, num_runs: int) -> str:
    """Count the records, models and training runs of a page, in a sentence."""
    models = {(row.name, row.detail) for table in tables for row in table.rows}
    data_sets = list(dict.fromkeys(table.data_set for table in tables))
    parts = []
    if num_records:
        parts.append(
            f"{_count(num_records, 'record')} of {_count(len(models), 'model')} on "
            f"{_listed(data_sets)}"
        )
    if num_runs:
        parts.append(_count(num_runs, "training run"))
    return f"{' and '.join(parts)}."


def describe_coverage(paper: Sequence[PaperTable]) -> str:
    """Count the paper's numbers that are measured, and those that cannot be, in a sentence."""
    ours, all_cells = sum(t.num_ours for t in paper), sum(t.num_cells for t in paper)
    return (
        f"{ours} of the paper’s {all_cells} numbers are measured here; "
        f"{sum(t.num_quoted for t in paper)} are of methods not implemented here."
    )


def _best(tables: Sequence[Table]) -> Iterator[BestModel]:
    for table in tables:
        rows = [
            row
            for row in table.rows
            if row.headline is not None and row.headline.unit == "%" and not row.group.is_baseline
        ]
        if rows and table.kind not in _WITHOUT_A_BEST:
            yield BestModel(table, max(rows, key=_mean), len(rows))


def _mean(row: TableRow) -> float:
    return row.headline.mean if row.headline is not None else float("-inf")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
