"""Build a table per data set and evaluator, with random baselines and published numbers."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rsa_eval.audit.row_kinds import is_control
from rsa_eval.evaluators import EVALUATORS
from rsa_eval.paper.detection import DetectionRow, detection_rows
from rsa_eval.paper.detection_recipes import describe_recipe, is_on_published_images
from rsa_eval.paper.published import (
    PAPER_DATA_SETS,
    PAPER_METHODS,
    Published,
    published_for,
)
from rsa_eval.records.detection_recipe import recipe_of
from rsa_eval.records.groups import Group, Statistic, engine_of, format_number
from rsa_eval.records.image_sets import (
    annotations_differ,
    describe_images_of,
    differing_splits,
    name_training_set,
)
from rsa_eval.records.record import GIVEN_FEATURES, Record
from rsa_eval.report.inputs import trials_folder
from rsa_pretrain.data.sets import Split
from rsa_pretrain.plumbing.config.files import flatten

EVALUATOR_TITLES = {name: evaluator.title for name, evaluator in EVALUATORS.items()} | {
    "detection": "Object detection and instance segmentation",
}
"""Titles of tables by the kind of their records, in the order of the tables."""

# Settings that distinguish models of one method in the paper's Table 1.
_VARIANTS = ("method.views", "method.beta_mode")


@dataclass(frozen=True)
class TableRow:
    """One model in one table."""

    name: str
    detail: str
    """Origin of the weights, the detector's engine, the folder of trials that share one, and the
    evaluation's images where those of the table's rows differ."""
    group: Group
    cells: tuple[Statistic | None, ...]
    """By column; None for an empty cell."""
    difference: float | None
    """Headline minus that of random weights; None without a comparable baseline."""
    marks: tuple[int, ...]
    """Footnote numbers."""

    @property
    def headline(self) -> Statistic | None:
        """The headline cell."""
        return self.group.headline

    @property
    def difference_text(self) -> str:
        """The difference with its sign."""
        if self.difference is None or self.headline is None:
            return ""
        sign = "+" if self.difference >= 0 else ""
        return sign + format_number(self.difference, self.headline.unit)


@dataclass(frozen=True)
class PublishedRow:
    """One published model in the same columns."""

    name: str
    detail: str
    cells: tuple[str, ...]
    source: str


@dataclass(frozen=True)
class Table:
    """All models of one data set, evaluator and protocol; detectors of one recipe."""

    anchor: str
    kind: str
    title: str
    data_set: str
    """The papers' name of it."""
    protocol: str
    """For detectors the recipe with its fingerprint, and whether it was changed."""
    metrics: tuple[str, ...]
    units: tuple[str, ...]
    """Empty for numbers without one."""
    headline_column: int
    rows: tuple[TableRow, ...]
    published: tuple[PublishedRow, ...]
    """Numbers from sources other than the paper, whose tables are separate; beside detectors all
    of the same recipe, on as many test images."""
    footnotes: tuple[str, ...]
    recipe: str = ""
    """Fingerprint of the detectors' recipe, or "unknown"; empty for other evaluations."""

    @property
    def recipe_mark(self) -> str:
        """The fingerprint in brackets, to follow the title; empty for other evaluations."""
        return f" [{self.recipe}]" if self.recipe else ""

    @property
    def columns(self) -> list[str]:
        """Column headings: metrics with their units."""
        pairs = zip(self.metrics, self.units, strict=True)
        return [f"{metric} ({unit})" if unit else metric for metric, unit in pairs]

    @property
    def has_differences(self) -> bool:
        """True if any row has random weights to compare with."""
        return any(row.difference is not None for row in self.rows)


def build_tables(groups: Sequence[Group]) -> list[Table]:
    """Arrange trials in tables, sorted by evaluator, data set, protocol and recipe."""
    places: dict[tuple[int, str, str, str], list[Group]] = {}
    for group in groups:
        record = group.first
        place = list(EVALUATOR_TITLES).index(record.kind)
        recipe = recipe_of(record)
        key = "" if recipe is None else recipe.key
        places.setdefault((place, group.image_set, _protocol(record), key), []).append(group)
    return [
        _build_table(places[key], f"table-{number}")
        for number, key in enumerate(sorted(places), start=1)
    ]


def data_set_name(name: str) -> str:
    """Return the papers' name of a data set."""
    return PAPER_DATA_SETS.get(name, name)


def model_name(record: Record) -> str:
    """Name an evaluated model after its pretraining method and variant, as in Table 1.

    Features that were extracted elsewhere are named by their file and its folder.
    """
    metadata, settings = record.model.metadata, flatten(record.model.pretraining or {})
    if record.model.is_random:
        return "random weights"
    if record.model.other_network == GIVEN_FEATURES and record.model.checkpoint is not None:
        return str(Path(*Path(record.model.checkpoint).parts[-2:]))
    if metadata is None:
        return record.model.network
    name = PAPER_METHODS.get(metadata.method, metadata.method)
    words = [name, *(str(settings[key]) for key in _VARIANTS if key in settings)]
    return " ".join(words) + (", control" if is_control(record) else "")


def model_detail(record: Record) -> str:
    """Describe an evaluated model: network, training and origin, without seeds."""
    backbone, metadata = record.model.backbone, record.model.metadata
    parts = [record.model.network]
    if backbone is None:
        return record.model.checkpoint or record.model.network
    if metadata is None:
        if backbone.zero_init_residual:
            parts.append("residual branches zero")
        return " · ".join(parts)
    if metadata.origin is not None:
        origin = metadata.origin
        parts.append(f"imported, layout {origin.layout}, network {origin.network}")
        return " · ".join(parts)
    epochs = metadata.epochs
    trained = "trained" if epochs is None else f"{epochs:g} epoch{'' if epochs == 1 else 's'}"
    pretraining = record.model.pretraining or {}
    images = name_training_set(metadata.data_set or "unknown images", pretraining.get("data"))
    parts.append(f"{trained} on {data_set_name(images)}")
    settings = flatten(pretraining)
    if "method.beta_base" in settings:
        parts.append(f"β {settings['method.beta_base']:g} {settings.get('method.beta_mode', '')}")
    if "method.views" in settings:
        parts.append(f"{settings['method.views']} views")
    if record.model.pretraining is None and record.model.checkpoint is not None:
        parts.append("/".join(Path(record.model.checkpoint).parts[-3:-1]))
    return " · ".join(parts)


def _protocol(record: Record) -> str:
    recipe = recipe_of(record)
    return record.protocol if recipe is None else describe_recipe(recipe)


def _build_table(groups: list[Group], anchor: str) -> Table:
    first = groups[0].first
    recipe = recipe_of(first)
    records = [record for group in groups for record in group.records]
    units = {name: metric.unit for record in records for name, metric in record.metrics.items()}
    metrics = tuple(units)
    footnotes = tuple(dict.fromkeys(text for group in groups for text in _footnotes(group)))
    baselines = [group for group in groups if group.is_baseline]
    trained = [group for group in groups if not group.is_baseline]
    splits = differing_splits(records)
    rows = [_row(group, metrics, baselines, footnotes) for group in [*trained, *baselines]]
    return Table(
        anchor=anchor,
        kind=first.kind,
        title=EVALUATOR_TITLES[first.kind],
        data_set=data_set_name(groups[0].image_set),
        protocol=_protocol(first),
        metrics=metrics,
        units=tuple(units.values()),
        headline_column=metrics.index(first.headline) if first.headline in metrics else 0,
        rows=tuple(_with_images(row, splits) for row in rows),
        published=_published_rows(first, metrics),
        footnotes=footnotes,
        recipe="" if recipe is None else recipe.fingerprint or "unknown",
    )


def _row(
    group: Group, metrics: Sequence[str], baselines: Sequence[Group], footnotes: Sequence[str]
) -> TableRow:
    return TableRow(
        name=model_name(group.first),
        detail=" · ".join(
            [model_detail(group.first), *_engine(group.first), *_trials_folder(group)]
        ),
        group=group,
        cells=tuple(group.statistic(metric) for metric in metrics),
        difference=_difference(group, baselines),
        marks=tuple(footnotes.index(text) + 1 for text in _footnotes(group)),
    )


def _with_images(row: TableRow, splits: Sequence[Split]) -> TableRow:
    """Add to a row's detail the images of splits that are not alike in the whole table."""
    records = row.group.records  # of which older ones do not know their images
    images = dict.fromkeys(describe_images_of(own, split) for split in splits for own in records)
    return replace(row, detail=" · ".join(filter(None, [row.detail, *images])))


def _footnotes(group: Group) -> list[str]:
    """Return the departures, which all trials share, and the warnings of any of them."""
    return [*group.first.deviations, *group.warnings]


def _engine(record: Record) -> list[str]:
    engine = engine_of(record)
    return [] if engine is None else [f"engine {engine}"]


def _trials_folder(group: Group) -> list[str]:
    """Name the folder that contains all of a group's trials, if there is one."""
    folders = {trials_folder(path.parent.parent) for path in group.paths}
    return [str(folder) for folder in folders if folder is not None] if len(folders) == 1 else []


def _published_rows(record: Record, metrics: Sequence[str]) -> tuple[PublishedRow, ...]:
    others = published_for(record.data_set, record.kind)
    found: list[Published | DetectionRow] = [
        *(row for row in others if row.place is None),
        *(detection_rows(recipe_of(record)) if is_on_published_images(record) else ()),
    ]
    return tuple(
        PublishedRow(
            name=row.method,
            detail=row.setting,
            cells=tuple(
                row.scores[name].text.replace("±", " ± ") if name in row.scores else ""
                for name in metrics
            ),
            source=row.source,
        )
        for row in found
        if not row.scores.keys().isdisjoint(metrics)
    )


def _difference(group: Group, baselines: Sequence[Group]) -> float | None:
    """Subtract the mean over random weights in otherwise equal evaluations."""
    headline = group.headline
    if group.is_baseline or headline is None:
        return None
    values = [
        value
        for baseline in baselines
        if _comparable(group.first, baseline.first) and baseline.headline is not None
        for value in baseline.headline.values
    ]
    return headline.mean - sum(values) / len(values) if values else None


def _comparable(record: Record, baseline: Record) -> bool:
    return (
        record.model.network == baseline.model.network
        and record.num_samples == baseline.num_samples
        and sorted(record.deviations) == sorted(baseline.deviations)
        and record.headline == baseline.headline
        and engine_of(record) == engine_of(baseline)
        and not annotations_differ(record, baseline, "train")
        and not annotations_differ(record, baseline, "test")
        and not differing_splits([record, baseline])
    )
