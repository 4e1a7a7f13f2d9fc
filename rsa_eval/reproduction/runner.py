"""Trials from the first step to the last record, resumable at any point."""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from rsa_eval.reproduction.trials import DetectorTrial, Trial
from rsa_eval.suite import run_suite
from rsa_pretrain.atomic_files import write_text
from rsa_pretrain.checkpoint import BACKBONE_FILE
from rsa_pretrain.config import PretrainConfig, reads_elsewhere
from rsa_pretrain.device import resolve_device
from rsa_pretrain.distributed import min_over_ranks, process_group
from rsa_pretrain.errors import UserError
from rsa_pretrain.machines import read_machines
from rsa_pretrain.metrics_log import METRICS_FILE, read_metrics
from rsa_pretrain.stop_signal import Stopped, TimeLimit, exit_code

_log = logging.getLogger(__name__)

# What is kept of a run: no weights, no pictures.
_KEPT = ("config.yaml", "metrics.jsonl", "machines.json", "records/*.json")


class Train(Protocol):
    """Trains one run to its end; returns 0, or 128 + the number of the signal that stopped it.

    A finished run is only held against what is asked for, settings and images.
    """

    def __call__(self, config: PretrainConfig, *, resume: bool) -> int:
        """Train, from the run folder's last checkpoint if it has one and ``resume`` is set."""


class Detect(Protocol):
    """Trains and evaluates one detector; returns 0, or 128 + the number of the signal."""

    def __call__(self, path: Path, overrides: Sequence[str], start: Path | None) -> int:
        """Go on with what is in the overrides' ``output_dir``.

        Args:
            path: YAML file of its recipe.
            overrides: ``key=value`` words; those that make another recipe are refused.
            start: Run folder of the backbone; None starts from random weights.
        """


@dataclass(frozen=True)
class Makers:
    """What the other packages do for a trial."""

    train: Train
    detect: Detect


def make_trials(trials: Sequence[Trial], makers: Makers, results: Path, limit: TimeLimit) -> int:
    """Make what is not there of each trial, and keep what is small of it.

    Args:
        trials: What is made, in this order.
        makers: How.
        results: ``ROW/seed-S`` below it receives what is kept.
        limit: Entered; when its time is up, the work ends as at a signal.

    Returns:
        0, or the exit code of what stopped the work.

    Raises:
        UserError: If a trial breaks down; names it.
    """
    for number, trial in enumerate(trials, start=1):
        _log.info("%d of %d: %s", number, len(trials), trial.name)
        try:
            code = _make(trial, makers, limit)
            if code == 0:
                _keep(trial, results)
        except UserError as error:
            raise UserError(f"{trial.name}: {error}") from None
        except Stopped as stopped:
            _log.warning("%s", stopped)
            return exit_code(stopped.received)
        if code:
            return code
    return 0


def _make(trial: Trial, makers: Makers, limit: TimeLimit) -> int:
    if isinstance(trial, DetectorTrial):
        return _make_detector(trial, makers.detect, limit)
    with process_group(resolve_device(trial.config.training.device)):
        if _is_up(limit):
            return limit.exit_code
        # Images in another place may be others, which training compares.
        train = not trial.has_weights or (trial.trained and reads_elsewhere(trial.config))
        if train and (code := makers.train(trial.config, resume=True)):
            return code
        if _is_up(limit):
            return limit.exit_code
        outcome = run_suite([trial.target()], trial.evaluations, trial.folder.parent)
    if outcome.failures:
        failures = (f"{name}: {message}" for (_, name), message in outcome.failures.items())
        raise UserError("; ".join(failures))
    return 0


def _make_detector(trial: DetectorTrial, detect: Detect, limit: TimeLimit) -> int:
    if limit.is_up:
        return limit.exit_code
    if trial.start is not None and not (trial.start / BACKBONE_FILE).exists():
        raise UserError(
            f"it starts from '{trial.start / BACKBONE_FILE}', which is not there; reproduce that "
            "row first"
        )
    own = [f"seed={trial.seed}", f"output_dir={json.dumps(str(trial.folder))}"]
    return detect(trial.config, [*trial.overrides, *own], trial.start)


def _is_up(limit: TimeLimit) -> bool:
    """Whether the time is up for any of the processes."""
    return min_over_ranks(-int(limit.is_up)) < 0


def _keep(trial: Trial, results: Path) -> None:
    """Copy what is small; a damaged log, which no page could read, is refused."""
    read_machines(trial.folder)
    if (trial.folder / METRICS_FILE).is_file():
        read_metrics(trial.folder / METRICS_FILE)
    # Several processes write the same bytes.
    for pattern in _KEPT:
        for path in sorted(trial.folder.glob(pattern)):
            kept = results / trial.name / path.relative_to(trial.folder)
            write_text(kept, path.read_text(encoding="utf-8"))
