"""Records to tables: one per data set and evaluator, with baselines and published rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rsa_eval.published import published_for
from rsa_eval.record import Record

_EVALUATORS = {
    "knn": "Nearest neighbours",
    "linear": "Linear probe",
    "logistic": "Logistic regression",
    "low_shot": "Low-shot classification",
    "finetune": "Fine-tuning",
    "svm": "Linear SVM",
    "diagnostics": "Diagnostics",
    "detection": "Object detection and instance segmentation",
}


@dataclass(frozen=True)
class Row:
    """One model in one table."""

    name: str
    detail: str
    cells: list[str]
    """By column; empty where there is no number."""
    headline: float | None
    """The headline cell's number, for the bar behind it."""
    difference: str
    """Headline minus that of random weights; empty where there is nothing to compare."""
    marks: list[int]
    """Numbers of the footnotes."""
    is_baseline: bool = False


@dataclass(frozen=True)
class PublishedRow:
    """One published model in the same columns."""

    name: str
    detail: str
    cells: list[str]
    source: str


@dataclass(frozen=True)
class Table:
    """All models of one data set, evaluator and protocol."""

    anchor: str
    title: str
    data_set: str
    protocol: str
    columns: list[str]
    headline_column: int
    rows: list[Row]
    published: list[PublishedRow]
    footnotes: list[str]


def build_tables(records: Sequence[Record]) -> list[Table]:
    """Group records into tables, evaluators in a fixed order, then by data set and protocol."""
    groups: dict[tuple[int, str, str], list[Record]] = {}
    for record in records:
        place = list(_EVALUATORS).index(record.kind)
        groups.setdefault((place, record.data_set, record.protocol), []).append(record)
    return [
        _build_table(groups[key], f"table-{number}")
        for number, key in enumerate(sorted(groups), start=1)
    ]


def model_name(record: Record) -> str:
    """Name what was evaluated: how the weights were made."""
    metadata = record.model.metadata
    return "random init" if metadata is None else metadata.method


def model_detail(record: Record) -> str:
    """Describe what was evaluated: network, training and origin."""
    backbone, metadata = record.model.backbone, record.model.metadata
    parts = [f"{backbone.arch}, {backbone.stem} stem"]
    if metadata is not None:
        origin = metadata.origin
        if origin is None:
            parts.append(f"{metadata.epochs:g} epochs on {metadata.data_set}, seed {metadata.seed}")
        else:
            parts.append(f"imported, layout {origin.layout}, network {origin.network}")
        if record.model.checkpoint is not None:
            parts.append("/".join(Path(record.model.checkpoint).parts[-3:-1]))
    else:
        if backbone.zero_init_residual:
            parts.append("residual branches zero")
        parts.append("seed " + ", ".join(str(seed) for seed in record.seeds))
    return " · ".join(parts)


def _build_table(group: list[Record], anchor: str) -> Table:
    first = group[0]
    published = published_for(first.data_set, first.kind)
    metrics = list(dict.fromkeys(name for record in group for name in record.metrics))
    footnotes = list(dict.fromkeys(text for record in group for text in record.deviations))
    baselines = [record for record in group if record.model.checkpoint is None]
    trained = [record for record in group if record.model.checkpoint is not None]
    return Table(
        anchor=anchor,
        title=_EVALUATORS[first.kind],
        data_set=first.data_set,
        protocol=first.protocol,
        columns=[f"{name} ({_unit(group, name)})" for name in metrics],
        headline_column=metrics.index(first.headline) if first.headline in metrics else 0,
        rows=[_row(record, metrics, baselines, footnotes) for record in [*trained, *baselines]],
        published=[
            PublishedRow(
                name=row.method,
                detail=row.setting,
                cells=[
                    _printed(row.scores[name].text) if name in row.scores else ""
                    for name in metrics
                ],
                source=row.source,
            )
            for row in published
        ],
        footnotes=footnotes,
    )


def _row(record: Record, metrics: list[str], baselines: list[Record], footnotes: list[str]) -> Row:
    headline = record.metrics.get(record.headline)
    return Row(
        name=model_name(record),
        detail=model_detail(record),
        cells=[
            f"{record.metrics[name].value:.2f}" if name in record.metrics else ""
            for name in metrics
        ],
        headline=None if headline is None else headline.value,
        difference=_difference(record, baselines),
        marks=[footnotes.index(text) + 1 for text in record.deviations],
        is_baseline=record.model.checkpoint is None,
    )


def _difference(record: Record, baselines: list[Record]) -> str:
    """Subtract the mean of the random-init records that differ in nothing but weights and seed."""
    if record.model.checkpoint is None or record.headline not in record.metrics:
        return ""
    values = [
        baseline.metrics[record.headline].value
        for baseline in baselines
        if _comparable(record, baseline) and record.headline in baseline.metrics
    ]
    if not values:
        return ""
    difference = record.metrics[record.headline].value - sum(values) / len(values)
    return f"{difference:+.2f}".replace("-", "−")


def _comparable(record: Record, baseline: Record) -> bool:
    ours, theirs = record.model.backbone, baseline.model.backbone
    return (
        (ours.arch, ours.stem) == (theirs.arch, theirs.stem)
        and record.num_samples == baseline.num_samples
        and record.deviations == baseline.deviations
        and record.headline == baseline.headline
    )


def _unit(group: list[Record], metric: str) -> str:
    return next(record.metrics[metric].unit for record in group if metric in record.metrics)


def _printed(score: str) -> str:
    return score.replace("±", " ± ")
