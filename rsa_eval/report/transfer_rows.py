"""Arrange a report's tables of a transfer suite as one: a row per model, a column per data set."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rsa_eval.records.groups import Statistic
from rsa_eval.records.identity import facts_across_sets, trial_key
from rsa_eval.records.record import BOOTSTRAP, Metric, MetricInterval, Record
from rsa_eval.report.tables import Table, TableRow
from rsa_eval.report.transfer import (
    PUBLISHED_PROTOCOLS,
    ModelTransfer,
    TransferTable,
    repeated_sets,
    transfer_table,
)
from rsa_pretrain.data.sets import DATA_SETS

# Beginnings of the suite's records, PROTOCOL-SET.json, by the protocol that they contain.
_PREFIXES = {"kornblith": "logistic-", "ridge": "ridge-", "byol": "finetune-"}
_PUBLISHED_SETS = frozenset(entry.name for entry in DATA_SETS)
_SHOWN_HASH = 8

_Facts = Mapping[str, Any]


def find_transfers(tables: Sequence[Table]) -> list[TransferTable]:
    """Arrange the tables of a transfer suite's protocols as one table over their data sets.

    Args:
        tables: All tables; those of one protocol count if there are two data sets or more.
    """
    by_protocol: dict[str, list[Table]] = {}
    for table in tables:
        if table.protocol in PUBLISHED_PROTOCOLS:
            by_protocol.setdefault(table.protocol, []).append(table)
    return [
        _over_tables(protocol, found) for protocol, found in by_protocol.items() if len(found) > 1
    ]


def _over_tables(protocol: str, tables: Sequence[Table]) -> TransferTable:
    found: dict[tuple[str, int], dict[str, TableRow]] = {}
    facts: dict[str, _Facts] = {}
    firsts: dict[str, Record] = {}
    shown = [[row for row in table.rows if row.headline is not None] for table in tables]
    columns = _columns(protocol, tables)
    for column, rows, of_rows in zip(columns, shown, _facts_of(shown), strict=True):
        times = Counter[str]()
        for row, own in zip(rows, of_rows, strict=True):
            key = _canonical(own)
            times[key] += 1  # results that differ in their deviations or images alone stay apart
            found.setdefault((key, times[key]), {})[column] = row
            facts[key] = own
            firsts[column] = row.group.first
    names = _names([(next(iter(rows.values())), facts[key]) for (key, _), rows in found.items()])
    models = [
        _model(name if number == 1 else f"{name} ({number})", rows)
        for name, (_, number), rows in zip(names, found, found.values(), strict=True)
    ]
    return transfer_table(
        models,
        {column: record.headline for column, record in firsts.items()},
        PUBLISHED_PROTOCOLS[protocol],
        f"{tables[0].title} on {len(firsts)} data sets, protocol {protocol}",
        repeated_sets(firsts),
    )


def _columns(protocol: str, tables: Sequence[Table]) -> list[str]:
    """Name the tables' data sets, a user's own as in the suite if the records' files tell."""
    prefix = _PREFIXES[protocol]
    places = [table.rows[0].group.image_set for table in tables]
    names = []
    for table, place in zip(tables, places, strict=True):
        stems = {path.stem for row in table.rows for path in row.group.paths}
        name = min(stems).removeprefix(prefix)
        is_own = place != table.rows[0].group.first.data_set and name not in _PUBLISHED_SETS
        is_told = len(stems) == 1 and min(stems).startswith(prefix)
        names.append(name if is_own and is_told else place)
    times = Counter(names)
    return [name if times[name] == 1 else place for name, place in zip(names, places, strict=True)]


def _facts_of(tables: Sequence[Sequence[TableRow]]) -> list[list[_Facts]]:
    """Return what the rows of one model have in common on all data sets, for each table's rows.

    Settings of the images may differ from set to set, so they count only if they are compared: if
    rows of the same model differ in them on one set.
    """
    split = [[_split(facts_across_sets(row.group.first)) for row in rows] for rows in tables]
    compared: dict[str, set[str]] = {}
    for rows in split:
        by_model: dict[str, list[_Facts]] = {}
        for model, images in rows:
            by_model.setdefault(_canonical(model), []).append(images)
        for key, found in by_model.items():
            differing = (_differing(images, found) for images in found)
            compared.setdefault(key, set()).update(*differing)
    return [
        [
            {**model, **{key: images.get(key) for key in compared[_canonical(model)]}}
            for model, images in rows
        ]
        for rows in split
    ]


def _split(facts: _Facts) -> tuple[_Facts, _Facts]:
    """Separate the facts of the model and its evaluation from the settings of the images."""
    images = {key: value for key, value in facts.items() if key.startswith("data.")}
    return {key: value for key, value in facts.items() if key not in images}, images


def _differing(own: _Facts, others: Sequence[_Facts]) -> list[str]:
    return [key for key in own if any(other.get(key) != own[key] for other in others)]


def _canonical(facts: _Facts) -> str:
    return json.dumps(facts, sort_keys=True, default=str)


def _names(rows: Sequence[tuple[TableRow, _Facts]]) -> list[str]:
    """Name models, with the settings in which those of one name differ."""
    plain = [f"{_name(row)} · {row.detail}" for row, _ in rows]
    names = []
    for name, (_, own) in zip(plain, rows, strict=True):
        alike = [other for same, (_, other) in zip(plain, rows, strict=True) if same == name]
        words = [f"{key}={_shown(key, own[key])}" for key in sorted(_differing(own, alike))]
        names.append(" · ".join([name, *words]))
    return names


def _name(row: TableRow) -> str:
    """Name imported weights by their file, and other models as in all tables."""
    model = row.group.first.model
    is_imported = model.metadata is not None and model.metadata.origin is not None
    return model.checkpoint if is_imported and model.checkpoint is not None else row.name


def _shown(key: str, value: Any) -> str:
    return str(value)[:_SHOWN_HASH] if key == "weights" else str(value)


def _model(name: str, rows: Mapping[str, TableRow]) -> ModelTransfer:
    """Average over the seeds that a model has on all of its data sets, and name them."""
    groups = {data_set: row.group for data_set, row in rows.items()}
    seeds = set.intersection(*(set(map(trial_key, own.records)) for own in groups.values()))
    if seeds:
        groups = {data_set: own.of_trials(seeds) for data_set, own in groups.items()}
        labels = ", ".join(next(iter(groups.values())).labels)
    else:
        labels = "seeds differ between data sets"
    found = {data_set: own.headline for data_set, own in groups.items()}
    headlines = {key: _headline(own) for key, own in found.items() if own is not None}
    return ModelTransfer(f"{name} · {labels}", headlines)


def _headline(found: Statistic) -> Metric:
    """Return the mean over trials with its interval over images."""
    interval = None
    if found.over_images is not None:
        low, high = found.over_images.low, found.over_images.high
        interval = MetricInterval(low=low, high=high, method=BOOTSTRAP)
    return Metric(value=found.mean, unit=found.unit, interval=interval)
