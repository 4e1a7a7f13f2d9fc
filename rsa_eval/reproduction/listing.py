"""The rows as a table: what each needs, and how far it has come."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from rsa_eval.reproduction.rows import Pretraining, Row
from rsa_eval.reproduction.trials import NOT_STARTED, BackboneTrial, plan_trial, run_config
from rsa_pretrain.command_line import describe_error
from rsa_pretrain.config import PretrainConfig, refuse_another_run
from rsa_pretrain.data import AnySplit, is_present, published_counts
from rsa_pretrain.data_config import DataConfig
from rsa_pretrain.errors import UserError
from rsa_pretrain.text_table import render_table

COLUMNS = ("row", "published", "made by", "data", "GiB", "hours", "status")

Measure = Callable[[PretrainConfig], tuple[float, int] | None]
"""Times a step of a run on this machine: seconds and peak bytes; None if it does not fit."""

_NOT_HERE = "not here"


@dataclass(frozen=True)
class Listing:
    """Where rows are looked for, and how their needs are measured."""

    out: Path
    overrides: Sequence[str]
    measure: Measure | None
    """None leaves memory and hours out."""

    def table(self, rows: Sequence[Row]) -> str:
        """Lay out the rows.

        Raises:
            UserError: If an override makes another run than a row's.
        """
        return render_table(COLUMNS, [self.cells(row) for row in rows])

    def cells(self, row: Row) -> list[object]:
        """Return a row's cells, one for each of ``COLUMNS``; None where there is nothing."""
        if row.work is None:
            return [row.name, row.published, _NOT_HERE, row.data_set, None, None, None]
        if isinstance(row.work, Pretraining):
            name = row.work.name
            config = run_config(row, row.work, self.overrides)
            needs = (_data(config.data), *self._cost(row.work, config))
        else:
            name = row.work.config.as_posix()
            needs = (row.data_set, None, None)
        made_by = name if row.home == row.name else row.home
        if isinstance(row.work, Pretraining) and not row.work.trained:
            made_by += ", untrained"
        return [row.name, row.published, made_by, *needs, self._status(row)]

    def _cost(
        self, work: Pretraining, config: PretrainConfig
    ) -> tuple[Decimal | str | None, Decimal | None]:
        """Return GiB and hours of the pretraining."""
        if self.measure is None or not work.trained:
            return None, None
        cost = self.measure(config)
        if cost is None:
            return "too much", None
        seconds, memory = cost
        num_images = _num_images(config)
        gib = Decimal(f"{memory / 2**30:.1f}")
        if num_images is None:
            return gib, None
        training = config.training
        steps = num_images // training.global_batch_size * training.epochs
        return gib, Decimal(f"{steps * seconds / 3600:.2f}")

    def _status(self, row: Row) -> str:
        seeds = sorted(
            int(folder.name.removeprefix("seed-"))
            for folder in (self.out / row.home).glob("seed-*")
            if folder.name.removeprefix("seed-").isdecimal()
        )
        found = [f"seed {seed}: {self._status_of(row, seed)}" for seed in seeds]
        return "; ".join(found) or NOT_STARTED

    def _status_of(self, row: Row, seed: int) -> str:
        try:
            trial = plan_trial(row, seed, self.out, self.overrides)
            if isinstance(trial, BackboneTrial):
                refuse_another_run(trial.config)
            return trial.status()
        except (UserError, OSError) as error:
            return f"unusable ({describe_error(error)})"


def _data(data: DataConfig) -> str:
    """Name the data set, and say whether its folder is there."""
    if data.root is None:
        return data.name
    return f"{data.name}, {'found' if is_present(data) else 'not'} in {data.root}"


def _num_images(config: PretrainConfig) -> int | None:
    """Return how many images pretraining reads; None if that is not published."""
    data = config.data
    if data.num_train_images is not None:
        return data.num_train_images
    split: AnySplit = "train" if config.method.name == "supervised" else "pretrain"
    return published_counts(data, split).images
