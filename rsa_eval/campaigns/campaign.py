"""Run trials one after another, resumable as a whole, and report their progress.

With several processes, all take part in every trial.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from rsa_eval.campaigns.run_records import make_record_of, recorded, warn_of_other_folder
from rsa_eval.campaigns.trials import AnyTrial, DetectorTrial, Trial, record_path
from rsa_eval.records.record import Record
from rsa_eval.records.workspace import Workspace
from rsa_pretrain.config import PretrainConfig, reads_elsewhere
from rsa_pretrain.plumbing.atomic_files import write_bytes
from rsa_pretrain.plumbing.config.layers import text_override
from rsa_pretrain.plumbing.device import resolve_device
from rsa_pretrain.plumbing.distributed import (
    is_main,
    min_over_ranks,
    process_group,
    wait_for_all,
    world_size,
)
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.failures import describe_error
from rsa_pretrain.plumbing.machines import read_machines
from rsa_pretrain.plumbing.metrics_log import METRICS_FILE, read_metrics
from rsa_pretrain.plumbing.stop_signal import Stopped, TimeLimit, exit_code
from rsa_pretrain.weights.checkpoint import BACKBONE_FILE, file_sha256

_KEPT = ("config.yaml", "metrics.jsonl", "machines.json", "records/[!.]*.json", "records/[!.]*.npz")

_log = logging.getLogger(__name__)


class Train(Protocol):
    """Trains one run to its end; returns 0, or 128 + the number of the signal that stopped it.

    A finished run is only checked against the requested settings and images.
    """

    def __call__(self, config: PretrainConfig, *, resume: bool) -> int:
        """Train, starting from the run folder's last checkpoint if ``resume`` is set."""


class Detect(Protocol):
    """Trains and evaluates one detector; returns 0, or 128 + the number of the signal."""

    def __call__(self, path: Path, overrides: Sequence[str], start: Path | None) -> int:
        """Train or resume in the overrides' ``output_dir``; do nothing if a record exists.

        Args:
            path: YAML file of the recipe.
            overrides: ``key=value`` words; those that change the recipe are refused.
            start: Run folder of the backbone; None starts from random weights.
        """


@dataclass
class Outcome:
    """Records and failures, keyed by the names of trial and record."""

    trials: Sequence[AnyTrial]
    records: dict[tuple[str, str], Record] = field(default_factory=dict)
    """Of backbones."""
    failures: dict[tuple[str, str], str] = field(default_factory=dict)
    """One-line reason why a record is missing."""
    stopped: int = 0
    """Exit code of an interruption; 0 if every trial was attempted."""

    @property
    def missing(self) -> list[tuple[str, str]]:
        """Names of trials and of the records that they lack, in order."""
        return [
            (trial.name, name)
            for trial in self.trials
            for name in trial.record_names
            if (trial.name, name) not in self.records
        ]

    def has_failed(self, trial: AnyTrial) -> bool:
        """Return whether any record of a trial failed."""
        return any(name == trial.name for name, _ in self.failures)

    @contextmanager
    def failures_noted(self, trial: AnyTrial, names: Sequence[str]) -> Iterator[None]:
        """Record an error in the block as the reason these records of a trial are missing.

        Raises:
            UserError: With several processes, because the others may be waiting for this one
                inside the block.
        """
        try:
            yield
        except (UserError, OSError) as error:
            message = describe_error(error)
            if world_size() > 1:
                raise UserError(f"{', '.join(names)} of {trial.name}: {message}") from None
            known = message in self.failures.values()
            _log.warning("failed%s", " for the same reason" if known else f": {message}")
            self.failures |= {(trial.name, name): message for name in names}


def run_trials(
    trials: Sequence[AnyTrial],
    budget_minutes: float | None,
    *,
    train: Train | None = None,
    detect: Detect | None = None,
    keep: Callable[[AnyTrial], None] | None = None,
) -> Outcome:
    """Train and evaluate unfinished trials; a failing trial does not stop the others.

    Args:
        trials: At least one, in the order in which they are run.
        budget_minutes: After this time the work stops as on a signal; None sets no limit.
        train: Pretrains backbones; required if a trial includes pretraining.
        detect: Fine-tunes detectors; required if there are any.
        keep: Called by the main process for each trial once all its records exist.

    Raises:
        UserError: With several processes, at the first failure.
    """
    outcome = Outcome(trials)
    device = resolve_device(trials[0].device)
    with process_group(device), TimeLimit(budget_minutes) as limit:
        for number, trial in enumerate(trials, start=1):
            _log.info("%d of %d: %s", number, len(trials), trial.name)
            try:
                with outcome.failures_noted(trial, trial.record_names):
                    if isinstance(trial, DetectorTrial):
                        outcome.stopped = _detect(trial, detect, limit, outcome)
                    else:
                        outcome.stopped = _train(trial, train, limit)
                done = outcome.stopped or outcome.has_failed(trial)
                if isinstance(trial, Trial) and not done:
                    outcome.stopped = _evaluate(trial, limit, outcome)
                if outcome.stopped:
                    break
                if keep is not None and is_main() and not outcome.has_failed(trial):
                    with outcome.failures_noted(trial, trial.record_names):
                        keep(trial)
            except Stopped as stopped:
                _log.warning("%s", stopped)
                outcome.stopped = exit_code(stopped.received)
                break
    return outcome


def read_outcome(trials: Sequence[Trial]) -> Outcome:
    """Read the records of trials whose weights exist, and make none."""
    outcome = Outcome(trials)
    for trial in trials:
        sha256 = weights_sha256(trial)
        for evaluation in trial.evaluations:
            path = record_path(trial, evaluation.name)
            record = recorded(path, sha256, evaluation.config, trial.other_network)
            if record is not None:
                outcome.records[trial.name, evaluation.name] = record
    return outcome


def has_weights(trial: Trial) -> bool:
    """Return whether the trial's weights exist."""
    return trial.pretraining is None or (trial.folder / BACKBONE_FILE).exists()


def weights_sha256(trial: Trial) -> str | None:
    """Return the hash of the weights, which must exist; None for random weights."""
    if trial.pretraining is None:
        return trial.sha256
    return file_sha256(trial.folder / BACKBONE_FILE)


def keep_small_files(trial: AnyTrial, results: Path) -> None:
    """Copy the small files of a trial to ``RESULTS/NAME``.

    Raises:
        UserError: If a log is damaged and no report could read it.
    """
    read_machines(trial.folder)
    if (trial.folder / METRICS_FILE).is_file():
        read_metrics(trial.folder / METRICS_FILE)
    for pattern in _KEPT:
        for path in sorted(trial.folder.glob(pattern)):
            kept = results / trial.name / path.relative_to(trial.folder)
            write_bytes(kept, path.read_bytes())


def _train(trial: Trial, train: Train | None, limit: TimeLimit) -> int:
    """Train the weights unless they exist; return 0 or the exit code of an interruption."""
    run = trial.pretraining
    # If data.root has changed, training checks the images against those the run started with.
    if run is None or min_over_ranks(int(has_weights(trial) and not reads_elsewhere(run))):
        return 0
    assert train is not None, "pretraining needs a trainer"
    return limit.exit_code if _is_up(limit) else train(run, resume=True)


def _evaluate(trial: Trial, limit: TimeLimit, outcome: Outcome) -> int:
    """Make the missing records; return 0 or the exit code of an interruption."""
    wait_for_all()  # until the main process has written the weights
    for evaluation in trial.evaluations:
        path = record_path(trial, evaluation.name)
        with outcome.failures_noted(trial, [evaluation.name]):
            sha256, network = weights_sha256(trial), trial.other_network
            record = recorded(path, sha256, evaluation.config, network)
            # All processes decide before one of them writes a record that another might find.
            if min_over_ranks(int(record is not None)):
                assert record is not None
                _log.info("%s of %s is recorded", evaluation.name, trial.name)
                if is_main():
                    Workspace(path).remove_states()  # which a kill may have left
                warn_of_other_folder(record, evaluation.config, path)
            elif _is_up(limit):
                return limit.exit_code
            else:
                _log.info("%s of %s", evaluation.name, trial.name)
                record = make_record_of(
                    trial.weights,
                    evaluation.evaluator,
                    evaluation.config,
                    path,
                    departures=trial.departures,
                )
            outcome.records[trial.name, evaluation.name] = record
    return 0


def _detect(trial: DetectorTrial, detect: Detect | None, limit: TimeLimit, outcome: Outcome) -> int:
    assert detect is not None, "a detector needs its engine"
    if trial.start is not None and not (trial.start / BACKBONE_FILE).exists():
        tried = [other for other in outcome.trials if other.folder == trial.start]
        failed = any(map(outcome.has_failed, tried))
        why = "which failed" if failed else "which does not exist; reproduce that row first"
        raise UserError(f"it starts from '{trial.start / BACKBONE_FILE}', {why}")
    if _is_up(limit):
        return limit.exit_code
    own = [f"seed={trial.seed}", text_override("output_dir", str(trial.folder))]
    return detect(trial.config, [*trial.overrides, *own], trial.start)


def _is_up(limit: TimeLimit) -> bool:
    """Return whether any process has run out of time."""
    return min_over_ranks(-int(limit.is_up)) < 0
