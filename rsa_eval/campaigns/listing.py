"""List the rows of the paper's tables with their settings, cost and status."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from rsa_eval.campaigns.progress import NOT_STARTED, status
from rsa_eval.campaigns.reproduction import plan_trial, run_config, speed_words
from rsa_eval.paper.rows import Detection, PaperRow
from rsa_pretrain.config import PretrainConfig
from rsa_pretrain.data.open_images import AnySplit, is_present, published_counts
from rsa_pretrain.data.settings import DataConfig
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.failures import describe_error
from rsa_pretrain.plumbing.text_table import TableFormat, render_table

Measure = Callable[[PretrainConfig], tuple[float, int] | None]
"""Times a training step on this machine: seconds and peak bytes; None if it does not fit."""

_COLUMNS = ("row", "published", "config", "method", "epochs", "batch", "optimizer", "data")
_COST = ("GiB", "hours")


@dataclass(frozen=True)
class RowListing:
    """Settings of a listing."""

    out: Path
    overrides: Sequence[str]
    measure: Measure | None
    """None leaves out memory and hours."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Column headings."""
        return (*_COLUMNS, *(_COST if self.measure else ()), "status")

    def table(self, rows: Sequence[PaperRow], table_format: TableFormat) -> str:
        """Format the rows as a table.

        Raises:
            UserError: If an override changes a row's run.
        """
        cells = [list(self.cells(row).values()) for row in rows]
        return render_table(self.columns, cells, table_format)

    def cells(self, row: PaperRow) -> dict[str, object]:
        """Return a row's cells by column; None for an empty cell."""
        cells: dict[str, object] = dict.fromkeys(self.columns)
        cells |= {"row": row.name, "published": row.published, "data": row.data_set}
        if row.work is None:
            return cells | {"method": "not implemented", "epochs": row.epochs}
        cells["status"] = self._status(row)
        if isinstance(row.work, Detection):
            return cells | {"config": row.work.config, "method": "Mask R-CNN"}
        config = run_config(row, row.work, self.overrides)
        cells |= {"config": row.work.name, "data": _data(config.data)}
        if not row.work.trained:
            return cells | {"method": "random weights"}
        cells |= {
            "method": config.method.name,
            "epochs": config.training.epochs,
            "batch": config.training.global_batch_size,
            "optimizer": config.optimizer.name,
        }
        return cells | (_cost(config, self.measure) if self.measure else {})

    def _status(self, row: PaperRow) -> str:
        seeds = sorted(
            int(folder.name.removeprefix("seed-"))
            for folder in (self.out / row.home).glob("seed-*")
            if folder.name.removeprefix("seed-").isdecimal()
        )
        found = [f"seed {seed}: {self._status_of(row, seed)}" for seed in seeds]
        return "; ".join(found) or NOT_STARTED

    def _status_of(self, row: PaperRow, seed: int) -> str:
        folder = self.out / row.home / f"seed-{seed}"
        try:
            # A run's progress counts with the speed settings that it was started with.
            own = [] if isinstance(row.work, Detection) else speed_words(folder)
            return status(plan_trial(row, seed, self.out, [*own, *self.overrides]))
        except (UserError, OSError) as error:
            return f"unusable ({describe_error(error)})"


def _cost(config: PretrainConfig, measure: Measure) -> dict[str, Decimal | str]:
    cost = measure(config)
    if cost is None:
        return {"GiB": "too much"}
    seconds, memory = cost
    cells: dict[str, Decimal | str] = {"GiB": Decimal(f"{memory / 2**30:.1f}")}
    num_images = _num_images(config)
    if num_images is not None:
        training = config.training
        steps = num_images // training.global_batch_size * training.epochs
        cells["hours"] = Decimal(f"{steps * seconds / 3600:.2f}")
    return cells


def _data(data: DataConfig) -> str:
    """Name the data set, and say whether its folder exists."""
    if data.root is None:
        return data.name
    return f"{data.name}, {'found' if is_present(data) else 'not'} in {data.root}"


def _num_images(config: PretrainConfig) -> int | None:
    """Return the number of images pretraining reads; None if it is not published."""
    data = config.data
    if data.num_train_images is not None:
        return data.num_train_images
    split: AnySplit = "train" if config.method.name == "supervised" else "pretrain"
    return published_counts(data, split).images
