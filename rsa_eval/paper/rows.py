"""Rows of the paper's tables and of the study: name, published number and recipe.

A row is named ``TABLE/DATA_SET/NAME``: ``table1/cifar10/rsa-decay``, ``table2/cifar10/rsa-200ep``
(with the epochs if a table has several schedules for a data set), ``table5/coco/rsa``. The file
``configs/paper.yaml`` gives the recipes. Tables 5 and 6 train detectors from rows of Table 4, and
Table 7 is computed from the logs of rows of Tables 2 and 3. The study ``study/DATA_SET/NAME`` is
not part of the paper.
"""

import difflib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, JsonValue, field_validator

from rsa_eval.paper.numbers import SMALL_SETS, TABLE_7, TABLE_7_SETS
from rsa_eval.paper.published import PAPER_DATA_SETS, Published, paper_cells
from rsa_pretrain.config import PretrainConfig
from rsa_pretrain.data.settings import UserPathText
from rsa_pretrain.plumbing.config.files import Section, load_config, parse_tree
from rsa_pretrain.plumbing.config.layers import read_yaml
from rsa_pretrain.plumbing.config.shipped import find_config
from rsa_pretrain.plumbing.errors import UserError

ROWS = Path("paper")
"""The shipped config of rows."""

_LINEAR_TABLES = (1, 2, 3, 4, 8)
_DETECTION_TABLES = (5, 6)
_SUITES = Path("reproduce")
_NAME = re.compile(r"[a-z0-9]+(/[a-z0-9_-]+){2}")
_MULTI_STAGE = "ma"  # RSA's only views, so the names of its rows omit it


class ExpectedResult(Section):
    """A headline that was measured, and how far from it another measurement may be."""

    value: float
    """Mean over the seeds."""
    tolerance: Annotated[float, Field(gt=0)]
    """In the metric's unit, for any number of seeds; other hardware rounds differently."""


class RowEntry(Section):
    """The recipe of a row."""

    config: tuple[UserPathText, ...]
    """Files, relative to the working folder, or names of shipped configs; later ones override
    earlier ones."""
    settings: dict[str, JsonValue] = Field(default_factory=dict)
    """The row's changes to them, by dotted key."""
    start: str | None = None
    """For a detector: the row whose backbone it starts from; null: random weights."""
    random_init: bool = False
    """Evaluate random weights instead of trained ones."""
    suite: str | None = None
    """Evaluations, a name in configs/eval/reproduce; null: those of the row's table."""
    expected: dict[str, ExpectedResult] = Field(default_factory=dict)
    """By the name of an evaluation: the headline that ``--check`` compares with."""

    @field_validator("config", mode="before")
    @classmethod
    def _accept_one(cls, config: Any) -> Any:
        return config if isinstance(config, list) else [config]


@dataclass(frozen=True)
class Pretraining:
    """A run and the evaluation of its backbone."""

    configs: tuple[Path, ...]
    """Files or names of shipped configs; later ones override earlier ones."""
    settings: tuple[str, ...]
    """``key=value`` overrides."""
    suite: Path
    """Evaluations, on the run's images."""
    trained: bool = True
    """False: no run; its network is evaluated with random weights."""

    @property
    def name(self) -> str:
        """The run's configs and overrides, as on the command line."""
        return " ".join([*(config.as_posix() for config in self.configs), *self.settings])

    @cached_property
    def config(self) -> PretrainConfig:
        """The run's settings."""
        return self.load(())

    def load(self, overrides: Sequence[str]) -> PretrainConfig:
        """Return the run's settings with further overrides.

        Raises:
            UserError: As raised by ``load_config``.
        """
        return load_config(PretrainConfig, self.configs, [*self.settings, *overrides])


@dataclass(frozen=True)
class Detection:
    """A detector fine-tuned from the backbone of another row."""

    config: Path
    """Name or file of the recipe."""
    start: str | None
    """Name of the row whose backbone it starts from; None starts from random weights."""


@dataclass(frozen=True)
class PaperRow:
    """One number of a table, or one of the study."""

    name: str
    """``TABLE/DATA_SET/NAME``."""
    table: int | None
    """None outside the paper."""
    label: str
    """The paper's label of the row; outside the paper the last part of the name."""
    data_set: str
    """Value of ``data.name``."""
    epochs: int | None
    """Epochs of pretraining; None where the paper does not say."""
    published: str | None
    """Linear top-1 accuracy in percent, box and mask AP, or hours of training; None outside the
    paper."""
    home: str
    """Name of the row in whose folder the run and its records are stored; another row's if two
    tables show the same run."""
    work: Pretraining | Detection | None
    """Its recipe; None if the method is not implemented here."""
    expected: Mapping[str, ExpectedResult] = field(default_factory=dict)
    """Measured headlines by the name of their evaluation."""


def find_rows(table: Path = ROWS) -> list[PaperRow]:
    """Return every row, sorted by table, data set and name; those outside the paper come last.

    Args:
        table: YAML file or name of a shipped config with the rows' recipes. Rows of the paper
            missing from it have no recipe.

    Raises:
        UserError: If it cannot be read, or names a row that the paper's tables do not have.
    """
    path = find_config(table)
    entries = _read_entries(path)
    tables = {name.split("/")[0] for name in entries}
    rows = {row.name: row for row in _paper_rows() if f"table{row.table}" in tables}
    for name in [name for name in entries if name not in rows]:
        table_name, data_set, label = name.split("/")
        if table_name.startswith("table"):
            raise UserError(f"{path}: the paper's tables have no row {name}")
        rows[name] = PaperRow(name, None, label.replace("-", " "), data_set, None, None, name, None)
    homes: dict[Pretraining | Detection, str] = {}
    found: dict[str, PaperRow] = {}
    for row in sorted(rows.values(), key=_order):
        entry = entries.get(row.name)
        if entry is not None:
            work = _work(row.name, entry)
            if entry.start is not None and entry.start not in found:
                raise UserError(f"{path}: {row.name} starts from unknown row '{entry.start}'")
            home = homes.setdefault(work, row.name)
            row = replace(row, home=home, work=work, expected=entry.expected)
        found[row.name] = row
    return list(found.values())


def select_rows(rows: Sequence[PaperRow], words: Sequence[str]) -> list[PaperRow]:
    """Return the rows with these names or prefixes (``table1/cifar10``), each once.

    Raises:
        UserError: If a word matches no row; suggests similar names.
    """
    selected: dict[str, PaperRow] = {}
    for word in words:
        name = word.strip("/")
        found = {row.name: row for row in rows if f"{row.name}/".startswith(f"{name}/")}
        if not found:
            near = difflib.get_close_matches(name, [row.name for row in rows], cutoff=0.0)
            raise UserError(f"there is no row '{word}'; similar: {', '.join(near)}")
        selected |= found
    return list(selected.values())


def work_of(cell: Published) -> Pretraining | Detection | None:
    """Return the recipe of a cell; None for a method not implemented or outside the tables."""
    table = cell.place.table if cell.place else None
    places = {(row.table, row.data_set, row.label, row.epochs): row.work for row in _rows()}
    return places.get((table, cell.data_set, _label(cell), cell.epochs)) if table else None


def run_of(cell: Published) -> PretrainConfig | None:
    """Return the run behind a cell, for a detector its backbone's; None for random weights."""
    work = work_of(cell)
    if isinstance(work, Detection):
        work = next((row.work for row in _rows() if row.name == work.start), None)
    return work.config if isinstance(work, Pretraining) else None


@cache
def _rows() -> list[PaperRow]:
    return find_rows()


def _read_entries(path: Path) -> dict[str, RowEntry]:
    entries = {}
    for name, tree in read_yaml(path).items():
        if not _NAME.fullmatch(name):
            raise UserError(f"{path}: expected a row as TABLE/DATA_SET/ROW, found '{name}'")
        entries[name] = parse_tree(RowEntry, tree, f"{path}: {name}")
    return entries


def _work(name: str, entry: RowEntry) -> Pretraining | Detection:
    data_set = name.split("/")[1]
    if data_set == "coco":
        return Detection(Path(entry.config[-1]), entry.start)
    suite = entry.suite
    if suite is None and name.startswith("table"):
        suite = "moco_v2" if data_set in SMALL_SETS else "mean_shift"
    return Pretraining(
        configs=tuple(map(Path, entry.config)),
        settings=tuple(f"{key}={json.dumps(value)}" for key, value in entry.settings.items()),
        suite=_SUITES / (suite or "study"),
        trained=not entry.random_init,
    )


def _paper_rows() -> Iterator[PaperRow]:
    """Yield the rows of the paper's tables as printed, without recipes."""
    for table in _LINEAR_TABLES:
        cells = paper_cells(table)
        for cell in cells:
            schedules = {other.epochs for other in cells if other.data_set == cell.data_set}
            label = _label(cell)
            name = _name(table, cell.data_set, label, cell.epochs if len(schedules) > 1 else None)
            published = cell.scores["top1"].text.replace("±", " ± ")
            yield PaperRow(name, table, label, cell.data_set, cell.epochs, published, name, None)
    for table in _DETECTION_TABLES:
        for cell in paper_cells(table):
            name = _name(table, cell.data_set, cell.method)
            box, mask = (cell.scores[metric].text for metric in ("bbox_AP", "segm_AP"))
            published = f"box {box}, mask {mask}"
            yield PaperRow(
                name, table, cell.method, cell.data_set, cell.epochs, published, name, None
            )
    for label, hours in TABLE_7.items():
        for data_set, number in zip(TABLE_7_SETS, hours, strict=True):
            name = _name(7, data_set, label)
            yield PaperRow(name, 7, label, data_set, None, f"{number} h", name, None)


def _label(cell: Published) -> str:
    """Name a row as its table does, with its distinguishing columns."""
    labels = cell.place.row if cell.place and cell.place.table == 1 else (cell.method,)
    return " ".join(label for label in labels if label != "–")


def _name(table: int, data_set: str, label: str, epochs: int | None = None) -> str:
    words = label if epochs is None else f"{label} {epochs}ep"
    return f"table{table}/{data_set}/{_slug(words)}"


def _slug(label: str) -> str:
    words = re.findall(r"[a-z0-9]+", label.lower())
    return "-".join(word for word in words if word != _MULTI_STAGE)


def _order(row: PaperRow) -> tuple[bool, int, int, str, int]:
    """Sort by table, then data set in the paper's order; rows outside the paper come last."""
    sets = list(PAPER_DATA_SETS)
    place = sets.index(row.data_set) if row.data_set in sets else len(sets)
    return row.table is None, row.table or 0, place, row.label.lower(), row.epochs or 0
