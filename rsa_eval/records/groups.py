"""Group records that differ only in their seeds, and summarise them by mean and deviation."""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rsa_eval.config import result_settings
from rsa_eval.records.image_sets import name_image_sets, name_training_set
from rsa_eval.records.mean_std import MeanStd
from rsa_eval.records.record import MetricInterval, Record
from rsa_pretrain.config import RESUMABLE_CHANGES, PretrainConfig, with_old_orientation
from rsa_pretrain.plumbing.config.files import flatten, parse_tree, to_tree
from rsa_pretrain.plumbing.errors import UserError

if TYPE_CHECKING:
    from rsa_eval.statistics.intervals import Interval

# Settings that differ between trials or only decide where a result is stored.
_OF_A_TRIAL = frozenset({"seed", "output_dir"})
# Each seed extends a different run; that run's schedule, recorded beside it, must match.
_PARENT = "extends.backbone_sha256"


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
    """Name of their test images."""

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

    A trial that was evaluated more than once counts once, by its newest record. Weights whose
    pretraining is not recorded share a group only if they are the same file.

    Args:
        found: Records with their files, oldest first.
    """
    groups: dict[tuple[str, str], dict[str, tuple[Path, Record]]] = {}
    image_sets = name_image_sets([record for _, record in found])
    for (path, record), images in zip(found, image_sets, strict=True):
        trials = groups.setdefault((images, _group_key(record)), {})
        trials[_trial_key(record)] = (path, record)
    return [_group(list(trials.values()), images) for (images, _), trials in groups.items()]


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


def shared_settings(record: Record) -> dict[str, Any]:
    """Return the evaluation's settings except seeds and paths, by dotted key."""
    settings = result_settings(record.config)
    return {key: value for key, value in settings.items() if key not in _OF_A_TRIAL}


def shared_training(pretraining: Mapping[str, Any]) -> dict[str, Any]:
    """Return pretraining settings except those of seed, paths and speed, by dotted key.

    Settings introduced after the run take the values that describe its behaviour.
    """
    with suppress(UserError):  # settings of another version of the toolkit stay as recorded
        known = with_old_orientation(pretraining)
        pretraining = to_tree(parse_tree(PretrainConfig, known, "pretraining"))
    unlike = _OF_A_TRIAL | RESUMABLE_CHANGES
    return {
        key: value
        for key, value in flatten(pretraining).items()
        if key not in unlike and not key.endswith(_PARENT)
    }


def _group(trials: list[tuple[Path, Record]], images: str) -> Group:
    trials = sorted(trials, key=lambda trial: _seed_numbers(trial[1]))
    return Group(
        records=tuple(record for _, record in trials),
        paths=tuple(path for path, _ in trials),
        image_set=images,
    )


def _seed_numbers(record: Record) -> tuple[int, list[int]]:
    seed = weights_seed(record)
    return (-1 if seed is None else seed, list(record.seeds))


def weights_seed(record: Record) -> int | None:
    """Return the seed of the run that trained a record's weights; None if it has none."""
    return None if record.model.metadata is None else record.model.metadata.seed


def _group_key(record: Record) -> str:
    model = record.model
    weights: Any = None if model.is_random else model.sha256
    if model.pretraining is not None and model.metadata is not None:
        data_set, data = model.metadata.data_set or "", model.pretraining.get("data")
        trained_on = name_training_set(data_set, data)
        weights = [shared_training(model.pretraining), trained_on, model.metadata.epochs]
    return _canonical(
        [
            record.kind,
            record.protocol,
            record.num_samples,
            record.headline,
            sorted(record.deviations),
            shared_settings(record),
            model.backbone.model_dump() if model.backbone else model.other_network,
            weights,
        ]
    )


def network_key(record: Record) -> str:
    """Return what tells a group's networks apart: the training's seed, else the weights.

    The same training run twice is one network, whose files may differ in their dates.
    """
    seed = weights_seed(record)
    if record.model.pretraining is not None and seed is not None:
        return f"seed {seed}"
    is_random = record.model.is_random or record.model.sha256 is None
    return f"random {record.seeds}" if is_random else str(record.model.sha256)


def _trial_key(record: Record) -> str:
    return _canonical([network_key(record), record.seeds])


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)
