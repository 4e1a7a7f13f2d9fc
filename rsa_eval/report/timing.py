"""Time training runs relative to BYOL on equal machines and data (Table 7)."""

import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from rsa_eval.paper.numbers import SMALL_SETS, TABLE_7, TABLE_7_SETS
from rsa_eval.paper.published import PAPER_METHODS
from rsa_eval.records.image_sets import name_training_set
from rsa_eval.report.inputs import TrainingRun
from rsa_eval.report.tables import data_set_name
from rsa_pretrain.config import PretrainConfig
from rsa_pretrain.plumbing.config.files import flatten, to_tree

# Settings in which a run and its reference may differ: the method, and those that take no time.
_MAY_DIFFER = ("method.", "optimizer.", "monitor.", "extends", "seed", "output_dir", "data.root")
_MAY_DIFFER_TOO = ("training.epochs", "training.checkpoint_every", "training.keep_checkpoints")


@dataclass(frozen=True)
class Timing:
    """One run's training speed."""

    run: TrainingRun
    method: str
    data_set: str
    epochs: float
    """Epochs trained so far, without those of a run that this one extends."""
    images_per_second: float
    """Over all logged steps."""
    seconds_per_epoch: float
    hours: float
    """Hours spent on the logged steps."""
    relative: float | None
    """Seconds per epoch over those of BYOL; None without a comparable run."""
    published: float | None
    """The paper's hours over those of BYOL; None unless its Table 7 has this training, for any
    number of epochs."""

    @property
    def name(self) -> str:
        """The run's name in the report."""
        return self.run.name

    @property
    def machine(self) -> str:
        """The run's machines; empty if not recorded."""
        return self.run.machine


@dataclass(frozen=True)
class _Rate:
    run: TrainingRun
    config: PretrainConfig
    steps_per_epoch: float
    images: int
    seconds: float

    @property
    def seconds_per_epoch(self) -> float:
        return self.seconds / self.epochs_logged

    @property
    def epochs_logged(self) -> float:
        return self.images / self.config.training.global_batch_size / self.steps_per_epoch

    @property
    def epochs(self) -> float:
        last: int = self.run.metrics[-1]["step"]
        return (last - _first_step(self.config)) / self.steps_per_epoch


def time_runs(runs: Sequence[TrainingRun]) -> list[Timing]:
    """Time every pretraining run whose log and settings allow it."""
    rates = [
        rate
        for run in runs
        if run.pretraining is not None and (rate := _rate(run, run.pretraining)) is not None
    ]
    references: dict[str, list[float]] = {}
    for rate in rates:
        key = _comparable_key(rate)
        if _is_reference(rate.config) and key is not None:
            references.setdefault(key, []).append(rate.seconds_per_epoch)
    return [_timing(rate, references) for rate in rates]


def published_ratio(method: str, data_set: str) -> float | None:
    """Return the paper's training time over BYOL's; None unless its Table 7 has both."""
    label = PAPER_METHODS.get(method)
    if label not in TABLE_7 or data_set not in TABLE_7_SETS:
        return None
    column = TABLE_7_SETS.index(data_set)
    return TABLE_7[label][column] / TABLE_7["BYOL"][column]


def _is_reference(config: PretrainConfig) -> bool:
    """Return whether a run is BYOL with two aggressive views, the paper's version."""
    method = to_tree(config.method)
    return (method["name"], method.get("views")) == ("byol", "AA")


def _is_papers(config: PretrainConfig) -> bool:
    """Return whether a run trains the paper's network for its data set on all images."""
    arch = "resnet18" if config.data.name in SMALL_SETS else "resnet50"
    is_whole = config.data.num_train_images is None and config.backbone.name == arch
    return is_whole and (config.method.name != "byol" or _is_reference(config))


def _rate(run: TrainingRun, config: PretrainConfig) -> _Rate | None:
    images, seconds, before = 0, 0.0, _first_step(config)
    for line in run.metrics:
        per_second = line.get("images_per_second")
        if isinstance(per_second, int | float) and math.isfinite(per_second) and per_second > 0:
            logged = (line["step"] - before) * config.training.global_batch_size
            images += logged
            seconds += logged / per_second
        before = line["step"]
    epochs = run.metrics[-1].get("epoch") if run.metrics else None
    if not isinstance(epochs, int | float) or epochs <= 0 or images <= 0:
        return None
    return _Rate(run, config, run.metrics[-1]["step"] / epochs, images, seconds)


def _first_step(config: PretrainConfig) -> int:
    return 0 if config.extends is None else config.extends.step


def _timing(rate: _Rate, references: dict[str, list[float]]) -> Timing:
    key = _comparable_key(rate)
    reference = references.get(key, []) if key is not None else []
    method, data_set = rate.config.method.name, rate.config.data.name
    return Timing(
        run=rate.run,
        method=PAPER_METHODS.get(method, method),
        data_set=data_set_name(name_training_set(data_set, rate.config.data.model_dump())),
        epochs=rate.epochs,
        images_per_second=rate.images / rate.seconds,
        seconds_per_epoch=rate.seconds_per_epoch,
        hours=rate.seconds / 3600,
        relative=rate.seconds_per_epoch / statistics.fmean(reference) if reference else None,
        published=published_ratio(method, data_set) if _is_papers(rate.config) else None,
    )


def _comparable_key(rate: _Rate) -> str | None:
    """Return a key that comparable runs share; None for unknown or changing machines."""
    if len(rate.run.machines) != 1:
        return None
    free = (*_MAY_DIFFER, *_MAY_DIFFER_TOO)
    settings = flatten(to_tree(rate.config))
    shared = {key: value for key, value in settings.items() if not key.startswith(free)}
    images = name_training_set(rate.config.data.name, rate.config.data.model_dump())
    return json.dumps([to_tree(rate.run.machines[0]), images, shared], sort_keys=True)
