"""Plot accuracy over beta_base, from trials that differ only in it (the paper's Figure 3)."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from rsa_eval.paper.published import PAPER_METHODS, PUBLISHED, Published
from rsa_eval.paper.rows import run_of
from rsa_eval.records.groups import Group, Statistic
from rsa_eval.records.identity import shared_settings, shared_training
from rsa_eval.records.record import Record
from rsa_eval.report.figures import SERIES, Picture, canvas
from rsa_eval.report.tables import EVALUATOR_TITLES, data_set_name

_KEY = "method.beta_base"


@dataclass(frozen=True)
class SweepCurve:
    """One curve with its numbers."""

    title: str
    detail: str
    points: tuple[tuple[float, Statistic], ...]
    """Our headline by beta_base, in increasing order."""
    published: tuple[tuple[float, Published], ...]
    """Numbers of the paper's tables for the same training."""
    headline: str
    """Name of the metric."""
    number: int
    """Number among the page's curves."""

    @property
    def picture(self) -> Picture:
        """The plotted curve."""
        title = f"{self.title}: {self.detail} ({self.number})"
        return Picture(self.title, _draw(title, self.headline, self.points, self.published))


def find_sweeps(groups: Sequence[Group]) -> list[SweepCurve]:
    """Return each set of two or more groups that differ only in ``method.beta_base``."""
    families: dict[str, dict[float, Group]] = {}
    for group in groups:
        beta = _beta_base(group.first)
        if beta is not None and group.headline is not None:
            families.setdefault(_family_key(group), {})[beta] = group
    return [
        _sweep(family, number)
        for number, family in enumerate(families.values(), start=1)
        if len(family) > 1
    ]


def _beta_base(record: Record) -> float | None:
    if record.model.pretraining is None:
        return None
    value = shared_training(record.model.pretraining).get(_KEY)
    return None if value is None else float(value)


def _family_key(group: Group) -> str:
    record = group.first
    training = shared_training(record.model.pretraining or {})
    training.pop(_KEY)
    epochs = record.model.metadata and record.model.metadata.epochs
    key = [
        record.kind,
        record.protocol,
        group.image_set,
        record.headline,
        sorted(record.deviations),
    ]
    return json.dumps(
        [*key, shared_settings(record), training, epochs], sort_keys=True, default=str
    )


def _sweep(family: dict[float, Group], number: int) -> SweepCurve:
    group = next(iter(family.values()))
    record = group.first
    metadata = record.model.metadata
    method = metadata.method if metadata else ""
    points = tuple(
        (beta, statistic)
        for beta in sorted(family)
        if (statistic := family[beta].headline) is not None
    )
    published = _published(record)
    evaluator = EVALUATOR_TITLES[record.kind].lower()
    title = f"{PAPER_METHODS.get(method, method)} on {data_set_name(group.image_set)}"
    detail = f"{evaluator}, {record.headline}"
    if metadata is not None and metadata.epochs is not None:
        detail += f", {metadata.epochs:g} epochs"
    return SweepCurve(title, detail, points, published, record.headline, number)


def _published(record: Record) -> tuple[tuple[float, Published], ...]:
    """Find the paper's numbers for the same method, data, length and beta schedule."""
    metadata = record.model.metadata
    training = shared_training(record.model.pretraining or {})
    if metadata is None:
        return ()
    found: dict[float, Published] = {}
    for row in PUBLISHED:
        run = run_of(row) if (row.kind, row.data_set) == (record.kind, record.data_set) else None
        beta = getattr(run and run.method, "beta_base", None)
        if (
            run is not None
            and beta is not None
            and "extends.step" not in training
            and record.headline in row.scores
            and (run.method.name, run.data.name, run.training.epochs, run.backbone.name)
            == (metadata.method, metadata.data_set, metadata.epochs, metadata.arch)
            and getattr(run.method, "beta_mode", None) == training.get("method.beta_mode")
        ):
            found.setdefault(beta, row)
    return tuple(sorted(found.items(), key=lambda pair: pair[0]))


def _draw(
    title: str,
    headline: str,
    points: tuple[tuple[float, Statistic], ...],
    published: tuple[tuple[float, Published], ...],
) -> str:
    with canvas(title, "beta_base", 1 + bool(published)) as drawn:
        betas = [beta for beta, _ in points]
        means = [statistic.mean for _, statistic in points]
        stds = [statistic.std or 0.0 for _, statistic in points]
        drawn.axes.errorbar(
            betas,
            means,
            yerr=stds,
            color=SERIES[0],
            linewidth=1.6,
            marker="o",
            markersize=4,
            capsize=3,
            label="ours",
        )
        if published:
            scores = [row.scores[headline].mean for _, row in published]
            drawn.axes.plot(
                [beta for beta, _ in published],
                scores,
                linestyle="none",
                marker="D",
                markersize=5,
                markerfacecolor="none",
                markeredgecolor=SERIES[1],
                label="paper's tables",
            )
    return drawn.svg
