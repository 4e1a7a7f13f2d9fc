"""Tell how far a run is, and whether it still trains."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rsa_eval.records.find import RECORDS_FOLDER, json_files
from rsa_eval.report.inputs import TrainingRun
from rsa_eval.report.timing import time_runs
from rsa_eval.serve.run_lock import is_locked
from rsa_pretrain.config import CONFIG_FILE
from rsa_pretrain.plumbing.config.layers import parse_yaml
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.weights.checkpoint import BACKBONE_FILE

RunStage = Literal["in progress", "finished", "stopped"]

# A log whose lock does not show here, as on another machine, is in progress for this long after a
# line, or for some times the time that a line took.
_QUIET_SECONDS = 120.0
_QUIET_LINES = 3.0
_ACCURACIES = ("knn_top1", "bbox_AP")


@dataclass(frozen=True)
class RunProgress:
    """A run's progress by its log; None for what neither log nor config tells."""

    step: int
    num_steps: int | None
    epoch: float | None
    num_epochs: float | None
    steps_per_epoch: float | None
    loss: float | None
    accuracy: float | None
    """Last accuracy of the monitor, or average precision of a detector, in percent."""
    seconds: float | None
    """Time that the logged steps took."""
    seconds_left: float | None
    seconds_per_line: float | None
    """Time between the last two lines."""


def measure_progress(run: TrainingRun) -> RunProgress:
    """Compute how far a run is; takes time in proportion to its log."""
    last = run.metrics[-1] if run.metrics else {}
    step = int(last.get("step", 0))
    epoch = _last(run.metrics, "epoch")
    per_epoch = step / epoch if epoch and "epoch" in last else None
    num_epochs = None if run.pretraining is None else float(run.pretraining.training.epochs)
    if num_epochs is not None and per_epoch is not None:
        num_steps: int | None = round(num_epochs * per_epoch)
    else:
        num_steps = _num_iterations(run.config)
    seconds, seconds_left = _times(run, epoch, num_epochs)
    accuracies = (_last(run.metrics, name) for name in _ACCURACIES)
    return RunProgress(
        step=step,
        num_steps=num_steps,
        epoch=epoch,
        num_epochs=num_epochs,
        steps_per_epoch=per_epoch,
        loss=_last(run.metrics, "loss"),
        accuracy=next((value for value in accuracies if value is not None), None),
        seconds=seconds,
        seconds_left=seconds_left,
        seconds_per_line=_seconds_per_line(run),
    )


def find_stage(folder: Path, progress: RunProgress, quiet_seconds: float) -> RunStage:
    """Tell whether a run trains, has finished, or has stopped before its end.

    Args:
        folder: The run's.
        progress: Of its log.
        quiet_seconds: Time since its log changed.
    """
    if is_locked(folder):
        return "in progress"
    # Only finished weights are evaluated.
    has_ended = progress.num_steps is not None and progress.step >= progress.num_steps
    if has_ended or (folder / BACKBONE_FILE).exists() or json_files(folder / RECORDS_FOLDER):
        return "finished"
    patience = max(_QUIET_SECONDS, _QUIET_LINES * (progress.seconds_per_line or 0.0))
    return "in progress" if quiet_seconds < patience else "stopped"


def _times(
    run: TrainingRun, epoch: float | None, num_epochs: float | None
) -> tuple[float | None, float | None]:
    """Return the seconds that the logged steps took, and those left."""
    for timing in time_runs([run]):
        if epoch is not None and num_epochs is not None:
            left = max(0.0, num_epochs - epoch) * timing.seconds_per_epoch
            return _finite(timing.hours * 3600), _finite(left)
    return None, _last(run.metrics[-1:], "eta_seconds")


def _last(metrics: list[dict[str, Any]], key: str) -> float | None:
    values = (line[key] for line in reversed(metrics) if isinstance(line.get(key), int | float))
    value = next(values, None)
    return None if value is None else _finite(float(value))


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _seconds_per_line(run: TrainingRun) -> float | None:
    if run.pretraining is None or len(run.metrics) < 2:
        return None
    before, last = run.metrics[-2:]
    rate = last.get("images_per_second")
    if not isinstance(rate, int | float) or not rate > 0:
        return None
    images = (last["step"] - before["step"]) * run.pretraining.training.global_batch_size
    return _finite(images / rate)


def _num_iterations(config: str | None) -> int | None:
    """Return the iterations of a detector's recipe, which are stated for its reference batch."""
    try:
        tree: Any = parse_yaml(config or "", CONFIG_FILE)
        solver: dict[str, float] = tree["solver"]
        scale = solver["batch_size"] / solver["reference_batch_size"]
        return round(solver["iterations"] / scale)
    except (UserError, KeyError, TypeError, ValueError, ArithmeticError):
        return None
