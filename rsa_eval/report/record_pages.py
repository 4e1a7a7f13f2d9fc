"""Describe single records for a report: facts, lists in their details, plots."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from rsa_eval.paper.detection_recipes import describe_recipe
from rsa_eval.records.detection_recipe import recipe_of
from rsa_eval.records.groups import engine_of, seeds_of
from rsa_eval.records.image_sets import name_image_set
from rsa_eval.records.record import Record
from rsa_eval.report.artifacts import Artifact, read_artifacts
from rsa_eval.report.tables import EVALUATOR_TITLES, Table, data_set_name, model_detail, model_name

_MOST_ROWS = 200
_SCALARS = str | int | float | bool | None


@dataclass(frozen=True)
class Column:
    """One column of a listing."""

    name: str
    is_number: bool


@dataclass(frozen=True)
class ListedValue:
    """One cell of a listing."""

    text: str
    value: _SCALARS


@dataclass(frozen=True)
class ListedDetails:
    """A list of uniform entries in a record's details, such as kNN's votes or AP by category."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[ListedValue, ...], ...]


@dataclass(frozen=True)
class RecordPage:
    """One record in full."""

    title: str
    detail: str
    facts: Mapping[str, str]
    listings: tuple[ListedDetails, ...]
    config: str


@dataclass(frozen=True)
class Environment:
    """Hardware, versions and commit of records."""

    hardware: str
    versions: str
    commit: str
    count: int
    """Number of records."""


@dataclass(frozen=True)
class Gallery:
    """The files that belong to one record."""

    model: str
    artifacts: tuple[Artifact, ...]

    @property
    def pictures(self) -> list[Artifact]:
        """The embedded files."""
        return [artifact for artifact in self.artifacts if artifact.source]

    @property
    def others(self) -> list[Artifact]:
        """The files that are only named."""
        return [artifact for artifact in self.artifacts if not artifact.source]


def describe_record(path: Path, record: Record) -> RecordPage:
    """Collect everything shown of one record."""
    recipe = recipe_of(record)
    facts = {
        "file": str(path),
        "checkpoint": record.model.checkpoint or "none: random weights",
        "SHA-256": record.model.sha256 or "",
        "seeds": seeds_of(record),
        "test images": str(record.num_samples),
        "protocol": record.protocol,
        "recipe": "" if recipe is None else describe_recipe(recipe),
        "engine": engine_of(record) or "",
        "deviations": "; ".join(record.deviations) or "none",
        "date": record.created,
        "time": f"{record.seconds:.1f} s",
        "hardware": record.hardware,
        "versions": _versions(record),
        "commit": _commit(record),
        "command": " ".join(record.command),
    }
    return RecordPage(
        title=record_title(record),
        detail=model_detail(record),
        facts=facts,
        listings=tuple(_listings(record.details)),
        config=yaml.safe_dump(record.config, sort_keys=False, allow_unicode=True),
    )


def record_title(record: Record) -> str:
    """Return a record's evaluator, data set, model and seeds as a title."""
    images = data_set_name(name_image_set(record.data_set, record.config.get("data")))
    evaluator = EVALUATOR_TITLES[record.kind]
    return f"{evaluator} on {images}: {model_name(record)}, {seeds_of(record)}"


def list_environments(records: Sequence[Record]) -> list[Environment]:
    """Count the records by hardware, versions and commit."""
    counts = Counter((record.hardware, _versions(record), _commit(record)) for record in records)
    return [Environment(*key, count) for key, count in counts.items()]


def galleries_by_table(tables: Sequence[Table]) -> dict[str, list[Gallery]]:
    """Read the files that belong to each table's records, by the table's anchor."""
    return {
        table.anchor: [
            Gallery(
                model=f"{row.name}, {seeds_of(record)}",
                artifacts=tuple(read_artifacts(record.artifacts, path.parent)),
            )
            for row in table.rows
            for record, path in zip(row.group.records, row.group.paths, strict=True)
            if record.artifacts
        ]
        for table in tables
    }


def _listings(details: Mapping[str, Any]) -> list[ListedDetails]:
    return [
        _listing(name, entries)
        for name, entries in details.items()
        if isinstance(entries, list) and entries and all(map(_is_flat, entries))
    ]


def _is_flat(entry: Any) -> bool:
    return isinstance(entry, dict) and all(isinstance(v, _SCALARS) for v in entry.values())


def _listing(name: str, entries: list[dict[str, Any]]) -> ListedDetails:
    keys = list(dict.fromkeys(key for entry in entries for key in entry))
    columns = tuple(
        Column(key, all(_is_number(entry.get(key)) for entry in entries)) for key in keys
    )
    title = name.replace("_", " ")
    if len(entries) > _MOST_ROWS:
        title += f", the first {_MOST_ROWS} of {len(entries)}"
    rows = tuple(
        tuple(ListedValue(_text(entry.get(key)), entry.get(key)) for key in keys)
        for entry in entries[:_MOST_ROWS]
    )
    return ListedDetails(title, columns, rows)


def _is_number(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def _text(value: _SCALARS) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _versions(record: Record) -> str:
    return ", ".join(f"{name} {number}" for name, number in record.library_versions.items())


def _commit(record: Record) -> str:
    commit = "unknown" if record.git_commit is None else record.git_commit[:12]
    return f"{commit}, with uncommitted changes" if record.git_dirty else commit
