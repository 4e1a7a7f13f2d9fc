"""Tell how far a run is, and whether it still trains."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rsa_eval.records.find import RECORDS_FOLDER, json_files
from rsa_eval.report.inputs import TrainingRun
from rsa_eval.report.timing import time_runs
from rsa_eval.serve.run_lock import is_locked
from rsa_pretrain.plumbing.config.layers import parse_yaml
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.weights.checkpoint import BACKBONE_FILE

RunState = Literal["in progress", "finished", "stopped"]

# A log whose lock does not show here, as on another machine, is in progress for this long after a
# line, or for some times the time that a line took.
_QUIET_SECONDS = 120.0
_QUIET_LINES = 3.0
_SHOWN = ("loss", "knn_top1", "bbox_AP")


@dataclass(frozen=True)
class RunProgress:
    """How far a run is, by its log; None for what the log and the config do not tell."""

    step: int
    num_steps: int | None
    epoch: float | None
    num_epochs: float | None
    steps_per_epoch: float | None
    loss: float | None
    accuracy: float | None
    """Last accuracy of the monitor, or average precision of a detector, in percent."""
    accuracy_name: str
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
    per_epoch = step / epoch if epoch and last.get("epoch") else None
    num_epochs = None if run.pretraining is None else float(run.pretraining.training.epochs)
    if num_epochs is not None and per_epoch is not None:
        num_steps: int | None = round(num_epochs * per_epoch)
    else:
        num_steps = _num_iterations(run.config)
    timing = next(iter(time_runs([run])), None)
    seconds = seconds_left = None
    if timing is not None and num_epochs is not None and epoch is not None:
        seconds = timing.hours * 3600
        seconds_left = max(0.0, num_epochs - epoch) * timing.seconds_per_epoch
    elif isinstance(last.get("eta_seconds"), int | float):
        seconds_left = float(last["eta_seconds"])
    name = next((name for name in _SHOWN[1:] if _last(run.metrics, name) is not None), "")
    return RunProgress(
        step=step,
        num_steps=num_steps,
        epoch=epoch,
        num_epochs=num_epochs,
        steps_per_epoch=per_epoch,
        loss=_last(run.metrics, "loss"),
        accuracy=_last(run.metrics, name) if name else None,
        accuracy_name=name,
        seconds=seconds,
        seconds_left=seconds_left,
        seconds_per_line=_seconds_per_line(run),
    )


def find_state(folder: Path, progress: RunProgress, quiet_seconds: float) -> RunState:
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


def _last(metrics: list[dict[str, Any]], key: str) -> float | None:
    values = (line[key] for line in reversed(metrics) if isinstance(line.get(key), int | float))
    value = next(values, None)
    return float(value) if value is not None and math.isfinite(value) else None


def _seconds_per_line(run: TrainingRun) -> float | None:
    if run.pretraining is None or len(run.metrics) < 2:
        return None
    before, last = run.metrics[-2:]
    rate = last.get("images_per_second")
    if not isinstance(rate, int | float) or not rate > 0:
        return None
    return float(
        (last["step"] - before["step"]) * run.pretraining.training.global_batch_size / rate
    )


def _num_iterations(config: str | None) -> int | None:
    """Return the iterations of a detector's recipe, which are stated for its reference batch."""
    try:
        tree = parse_yaml(config or "", "config.yaml")
    except UserError:
        return None
    solver = tree.get("solver") if isinstance(tree, dict) else None
    try:
        scale = solver["batch_size"] / solver["reference_batch_size"]
        return round(solver["iterations"] / scale)
    except (KeyError, TypeError, ZeroDivisionError):
        return None
