"""Write every number of a report as one line of CSV."""

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass

from rsa_eval.records.detection_recipe import recipe_of
from rsa_eval.records.groups import Group, Statistic
from rsa_eval.report.escaping import escape_spreadsheet
from rsa_eval.report.paper_tables import PaperTable
from rsa_eval.report.tables import Table


@dataclass(frozen=True)
class _Line:
    table: str
    row: str
    column: str
    source: str
    """``ours`` or the publication."""
    metric: str
    mean: float
    std: float | None
    unit: str
    images_low: float | None
    """95 % interval over test images, of a single trial or averaged over the trials."""
    images_high: float | None
    seeds_low: float | None
    """Student's 95 % interval of the mean over trials."""
    seeds_high: float | None
    n: int | None
    trials: str
    departures: str
    protocol: str
    recipe: str
    """Fingerprint of a detector's recipe; empty for other evaluations."""
    files: str


_UNKNOWN = (None, None, None, None)  # intervals of published numbers


def render_csv(tables: Sequence[Table], paper: Sequence[PaperTable]) -> str:
    """Return one line per number of the paper's tables, then of the tables by data set.

    Text that a spreadsheet would take for a formula is prefixed with an apostrophe.
    """
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(_Line.__dataclass_fields__)
    for line in [*_paper_lines(paper), *_lines(tables)]:
        writer.writerow(
            escape_spreadsheet(cell) if isinstance(cell, str) else cell for cell in astuple(line)
        )
    return file.getvalue()


def _paper_lines(paper: Sequence[PaperTable]) -> Iterator[_Line]:
    for table in paper:
        for row in table.rows:
            for column, cell in zip(table.columns, row.cells, strict=True):
                if cell is None:
                    continue
                where = (f"Table {table.number}", " ".join(row.labels), " ".join(column))
                score = cell.published
                yield _published(
                    where, "RSA paper", cell.metric, score.mean, score.std, cell.recipe
                )
                for ours in cell.ours:
                    notes = [table.footnotes[mark - 1] for mark in ours.marks]
                    yield _measured(where, cell.metric, ours.statistic, ours.group, notes)


def _lines(tables: Sequence[Table]) -> Iterator[_Line]:
    for table in tables:
        name = f"{table.title} on {table.data_set}{table.recipe_mark}"
        for row in table.rows:
            notes = [table.footnotes[mark - 1] for mark in row.marks]
            for metric, statistic in zip(table.metrics, row.cells, strict=True):
                if statistic is not None:
                    where = (name, f"{row.name}: {row.detail}", metric)
                    yield _measured(where, metric, statistic, row.group, notes)
        for other in table.published:
            for metric, text in zip(table.metrics, other.cells, strict=True):
                if text:
                    mean, _, std = text.partition(" ± ")
                    where = (name, f"{other.name}: {other.detail}", metric)
                    deviation = float(std) if std else None
                    yield _published(
                        where, other.source, metric, float(mean), deviation, table.recipe
                    )


def _published(
    where: tuple[str, str, str],
    source: str,
    metric: str,
    mean: float,
    std: float | None,
    recipe: str,
) -> _Line:
    return _Line(*where, source, metric, mean, std, "%", *_UNKNOWN, None, "", "", "", recipe, "")


def _measured(
    where: tuple[str, str, str], metric: str, found: Statistic, group: Group, notes: Sequence[str]
) -> _Line:
    images, seeds = found.over_images, found.over_seeds
    recipe = recipe_of(group.first)
    return _Line(
        *where,
        source="ours",
        metric=metric,
        mean=found.mean,
        std=found.std,
        unit=found.unit,
        images_low=None if images is None else images.low,
        images_high=None if images is None else images.high,
        seeds_low=None if seeds is None else seeds.low,
        seeds_high=None if seeds is None else seeds.high,
        n=len(found.values),
        trials=found.trials,
        departures="; ".join(notes),
        protocol=group.first.protocol,
        recipe="" if recipe is None else recipe.fingerprint or "unknown",
        files="; ".join(str(path) for path in group.paths),
    )
