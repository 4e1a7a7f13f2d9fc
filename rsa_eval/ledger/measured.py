"""What the ledger is drawn up from: the rows, and everything measured for them."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from rsa_eval.ledger.markdown import NOTHING, code, link
from rsa_eval.published import METHODS, Published, paper_cells
from rsa_eval.record import Record
from rsa_eval.report.groups import Group, group_records
from rsa_eval.report.inputs import TRIAL, trials_folder
from rsa_eval.report.timing import Timing
from rsa_eval.reproduction.rows import Detection, Pretraining, Row

_RUN = re.compile(r" run \S+")

_Key = tuple[int, str, str, int | None]


@dataclass(frozen=True)
class Measured:
    """Rows and results."""

    rows: Sequence[Row]
    records: Sequence[tuple[Path, Record]]
    """With their files."""
    timings: Mapping[Path, Timing]
    """By run folder."""
    results: Path
    """Folder that holds a row's trials in ``home/seed-S``."""
    page_folder: Path
    """Where the page lies, which links start from."""

    @cached_property
    def groups(self) -> list[Group]:
        """All records by trials."""
        return group_records(self.records)

    def rows_of(self, table: int | None) -> list[Row]:
        """Return the rows of a table of the paper; None: those of the study."""
        return [row for row in self.rows if row.table == table]

    def timings_of(self, row: Row) -> list[Timing]:
        """Return the times of the runs in a row's own folder."""
        folder = self.results / row.home
        return [timing for run, timing in self.timings.items() if trials_folder(run) == folder]

    def link(self, text: str, path: Path) -> str:
        """Link to a file."""
        return link(text, Path(os.path.relpath(path, self.page_folder)).as_posix())

    def name(self, row: Row) -> str:
        """Name a row as papers do, with a link to its config."""
        label, config = _label_of(row), _config_of(row)
        return label if config is None else self.link(label, config)


def cells_by_row(table: int) -> dict[_Key, Published]:
    """Return the cells of a table of the paper (rows of Tables 5 and 6).

    Only those that weights of this toolkit can fill tell the epochs.
    """
    return {
        (table, _label(cell), cell.data_set, cell.weights.epochs if cell.weights else None): cell
        for cell in paper_cells(table)
    }


def key(row: Row) -> _Key:
    """Return what a row of the paper is found by in ``cells_by_row``."""
    assert row.table is not None
    return row.table, row.label, row.data_set, row.epochs


def batch_of(row: Row) -> str:
    """Return a row's batch and optimizer."""
    if not isinstance(row.work, Pretraining):
        return NOTHING
    config = row.work.recipe.config
    return f"{config.training.global_batch_size}, {config.optimizer.name}"


def seeds_of(groups: Sequence[Group]) -> list[int]:
    """Return the seeds of the folders that hold the records of some trials."""
    folders = {path.parent.parent.name for group in groups for path in group.paths}
    return sorted(int(match[1]) for folder in folders if (match := TRIAL.fullmatch(folder)))


def command_of(row: Row, groups: Sequence[Group] = ()) -> str:
    """Return what makes a row, as its recipe is run: so many processes, the data there.

    Args:
        row: The row.
        groups: What was measured of it, whose seeds are named.
    """
    if row.work is None:
        return "quoted: not here"
    seeds = seeds_of(groups)
    words = f"reproduce {row.name}"
    if seeds not in ([], [0]):
        words += f" --seeds {','.join(map(str, seeds))}"
    if isinstance(row.work, Detection):
        return code(f"rsa-pretrain {words}")
    return code(_RUN.sub(f" {words}", row.work.recipe.command))


def _label(cell: Published) -> str:
    """Name a cell's row as recipes do."""
    if cell.place is not None and cell.place.table == 1:
        return " ".join(label for label in cell.place.row if label != NOTHING)
    return cell.method


def _label_of(row: Row) -> str:
    """Name a row of the study after its method; one of the paper keeps the name it has there."""
    if row.table is not None or not isinstance(row.work, Pretraining):
        return row.label
    if not row.work.trained:
        return "Random weights"
    method = row.work.recipe.config.method
    rest = row.label.removeprefix(method.name.replace("_", " ")).strip()
    views = getattr(method, "views", "")
    return f"{METHODS[method.name]} {views if rest == views.lower() else rest}".strip()


def _config_of(row: Row) -> Path | None:
    if isinstance(row.work, Detection):
        return row.work.config
    return None if row.work is None else row.work.recipe.path
