"""Group records that differ only in their seeds, and summarise them by mean and deviation."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from rsa_eval.records.evaluated_sets import name_evaluated_sets, split_by_images
from rsa_eval.records.identity import group_key, trial_key, weights_seed
from rsa_eval.records.image_sets import SPLITS
from rsa_eval.records.mean_std import MeanStd
from rsa_eval.records.record import MetricInterval, Record
from rsa_pretrain.data.sets import Split

if TYPE_CHECKING:
    from rsa_eval.statistics.intervals import Interval

_Hashes = tuple[str | None, ...]  # by split


@dataclass(frozen=True)
class Statistic:
    """One metric over the trials."""

    values: tuple[float, ...]
    labels: tuple[str, ...]
    """Seeds of each value."""
    unit: str
    intervals: tuple[MetricInterval, ...] = ()
    """95 % intervals over images, of each value; empty unless all have one."""

    @property
    def mean(self) -> float:
        """Arithmetic mean."""
        return MeanStd.of(self.values).mean

    @property
    def std(self) -> float | None:
        """Sample standard deviation (n - 1); None for a single trial."""
        return MeanStd.of(self.values).std

    @property
    def text(self) -> str:
        """Mean ± standard deviation over trials; for a single one, its interval over images."""
        if len(self.values) == 1 and self.intervals:
            return f"{self.mean:.1f} {self.over_images_text}"
        mean = format_number(self.mean, self.unit)
        return mean if self.std is None else f"{mean} ± {format_number(self.std, self.unit)}"

    @property
    def over_images(self) -> "Interval | None":
        """A trial's 95 % interval over images, its bounds averaged over the trials."""
        from rsa_eval.statistics.intervals import Interval

        if not self.intervals:
            return None
        low, high = (
            MeanStd.of([getattr(each, name) for each in self.intervals]).mean
            for name in ("low", "high")
        )
        return Interval(low, high)

    @property
    def over_seeds(self) -> "Interval | None":
        """Student's 95 % interval of the mean over trials; None for a single one."""
        from rsa_eval.statistics.intervals import t_interval

        return t_interval(self.values)

    @property
    def over_images_text(self) -> str:
        """The interval over images; empty if there is none."""
        return _bounds(self.over_images, self.unit)

    @property
    def over_seeds_text(self) -> str:
        """The interval over seeds; empty if there is none."""
        return _bounds(self.over_seeds, self.unit)

    @property
    def trials(self) -> str:
        """Each trial's seeds and value; for a single trial only the seeds."""
        if len(self.values) == 1:
            return self.labels[0]
        numbers = (format_number(value, self.unit) for value in self.values)
        return ", ".join(
            f"{label}: {text}" for label, text in zip(self.labels, numbers, strict=True)
        )


@dataclass(frozen=True)
class Group:
    """Trials of one evaluation of equally trained weights."""

    records: tuple[Record, ...]
    """One per trial, at least one."""
    paths: tuple[Path, ...]
    """Their files."""
    image_set: str
    """Name of their images."""
    hashes: Mapping[Split, str]
    """SHA-256 of each split's images, as far as any record of them tells."""

    @property
    def first(self) -> Record:
        """A representative, for properties that all records share."""
        return self.records[0]

    @property
    def is_baseline(self) -> bool:
        """True for random weights."""
        return self.first.model.is_random

    @property
    def warnings(self) -> list[str]:
        """The evaluator's doubts about any trial."""
        return list(dict.fromkeys(text for record in self.records for text in record.warnings))

    @property
    def headline(self) -> Statistic | None:
        """The metric shown in tables; None if a record lacks it."""
        return self.statistic(self.first.headline)

    def statistic(self, metric: str) -> Statistic | None:
        """Return a metric over the trials; None unless each of them has it."""
        if not all(metric in record.metrics for record in self.records):
            return None
        intervals = (record.metrics[metric].interval for record in self.records)
        found = [interval for interval in intervals if interval is not None]
        return Statistic(
            values=tuple(record.metrics[metric].value for record in self.records),
            labels=self.labels,
            unit=self.first.metrics[metric].unit,
            intervals=tuple(found) if len(found) == len(self.records) else (),
        )

    def of_trials(self, keys: Collection[str]) -> "Group":
        """Return the group of those trials whose ``trial_key`` is given."""
        kept = [n for n, record in enumerate(self.records) if trial_key(record) in keys]
        return replace(
            self,
            records=tuple(self.records[n] for n in kept),
            paths=tuple(self.paths[n] for n in kept),
        )

    @property
    def labels(self) -> tuple[str, ...]:
        """Name the trials by the seeds that differ: the weights', the evaluation's, or both."""
        weights = [weights_seed(record) for record in self.records]
        evaluations = {tuple(record.seeds) for record in self.records}
        if len(evaluations) == 1 and len(self.records) > 1 and None not in weights:
            return tuple(f"seed {seed}" for seed in weights)
        return tuple(seeds_of(record) for record in self.records)


def group_records(found: Sequence[tuple[Path, Record]]) -> list[Group]:
    """Group records by everything but their seeds, in the order of each group's first record.

    Records of other training or test images, as their SHA-256 tells, are no trials of one group.
    A trial that was evaluated more than once counts once, by its newest record. Weights whose
    pretraining is not recorded share a group only if they are the same file.

    Args:
        found: Records with their files, oldest first.
    """
    records = [record for _, record in found]
    image_sets = name_evaluated_sets(records)
    keys = list(zip(image_sets, map(group_key, records), strict=True))
    groups: dict[tuple[object, _Hashes], dict[str, tuple[Path, Record]]] = {}
    names: dict[tuple[object, _Hashes], str] = {}
    for (path, record), own, hashes in zip(
        found, keys, split_by_images(keys, records), strict=True
    ):
        groups.setdefault((own, hashes), {})[trial_key(record)] = (path, record)
        names[own, hashes] = own[0]
    return [
        _group(list(trials.values()), names[own, hashes], hashes)
        for (own, hashes), trials in groups.items()
    ]


def seeds_of(record: Record) -> str:
    """Name a record's seeds: of its weights and, if different, of its evaluation."""
    evaluation = "+".join(str(seed) for seed in record.seeds)
    weights = weights_seed(record)
    if weights is None or str(weights) == evaluation:
        return f"seed {evaluation}"
    return f"seed {weights} (evaluation {evaluation})"


def engine_of(record: Record) -> str | None:
    """Return the library that trained a detector; None for other evaluations."""
    engine = record.config.get("engine") if record.kind == "detection" else None
    return None if engine is None else str(engine)


def format_number(value: float, unit: str) -> str:
    """Format a number: percentages with two decimals, others with four significant digits."""
    text = f"{value:.2f}" if unit == "%" else f"{value:.4g}"
    return text.replace("-", "−") if text.startswith("-") else text


def _bounds(interval: "Interval | None", unit: str) -> str:
    if interval is None:
        return ""
    low, high = (
        f"{bound:.1f}".replace("-", "−") if unit == "%" else format_number(bound, unit)
        for bound in (interval.low, interval.high)
    )
    return f"[{low}, {high}]"


def _group(trials: list[tuple[Path, Record]], images: str, hashes: _Hashes) -> Group:
    trials = sorted(trials, key=lambda trial: _seed_numbers(trial[1]))
    return Group(
        records=tuple(record for _, record in trials),
        paths=tuple(path for path, _ in trials),
        image_set=images,
        hashes={split: own for split, own in zip(SPLITS, hashes, strict=True) if own is not None},
    )


def _seed_numbers(record: Record) -> tuple[int, list[int]]:
    seed = weights_seed(record)
    return (-1 if seed is None else seed, list(record.seeds))
