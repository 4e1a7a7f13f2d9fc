"""Read the progress of trials from the files that they leave."""

from pathlib import Path

from rsa_eval.campaigns.campaign import has_weights, weights_sha256
from rsa_eval.campaigns.run_records import recorded
from rsa_eval.campaigns.settings import PlannedEvaluation
from rsa_eval.campaigns.trials import DETECTION, AnyTrial, DetectorTrial, Trial, record_path
from rsa_eval.records.record import read_record
from rsa_eval.records.workspace import Workspace
from rsa_pretrain.plumbing.metrics_log import METRICS_FILE, read_metrics
from rsa_pretrain.weights.checkpoint import list_checkpoints

NOT_STARTED = "not started"
RECORDED = "recorded"
SAVED_MIDWAY = "saved midway"


def status(trial: AnyTrial) -> str:
    """Return ``recorded``, ``not started``, or the finished parts and those saved midway.

    Raises:
        UserError: If a file of the trial is damaged.
    """
    states = evaluation_states(trial)
    if isinstance(trial, DetectorTrial) or not has_weights(trial):
        return next(iter(states.values()))
    if set(states.values()) == {RECORDED}:
        return RECORDED
    done = [
        name if state == RECORDED else f"{name} {state}"
        for name, state in states.items()
        if state != NOT_STARTED
    ]
    if trial.pretraining is not None:
        return ", ".join(["trained", *done])
    return ", ".join(done) or NOT_STARTED


def evaluation_states(trial: AnyTrial) -> dict[str, str]:
    """Return the state of each of a trial's records: recorded, saved midway or not started.

    Before the weights are trained, it is the training's: not started, or its steps.

    Raises:
        UserError: If a file of the trial is damaged.
    """
    if isinstance(trial, DetectorTrial):
        path = record_path(trial, DETECTION)
        if not path.exists():
            return {DETECTION: _steps_taken(trial.folder, None)}
        read_record(path)
        return {DETECTION: RECORDED}
    if not has_weights(trial):
        assert trial.pretraining is not None
        steps = _steps_taken(trial.folder, trial.pretraining.training.epochs)
        return dict.fromkeys(trial.record_names, steps)
    sha256 = weights_sha256(trial)
    return {each.name: _state(trial, each, sha256) for each in trial.evaluations}


def is_trained(trial: AnyTrial) -> bool:
    """Return whether only evaluations are left to do; a detector's training includes its own."""
    return isinstance(trial, Trial) and has_weights(trial)


def _state(trial: Trial, evaluation: PlannedEvaluation, sha256: str | None) -> str:
    path = record_path(trial, evaluation.name)
    if recorded(path, sha256, evaluation.config, trial.other_network) is not None:
        return RECORDED
    return SAVED_MIDWAY if Workspace(path).states else NOT_STARTED


def _steps_taken(folder: Path, epochs: int | None) -> str:
    """Return how many training steps are saved and, if the log says so, out of how many."""
    checkpoints = list_checkpoints(folder)
    if not checkpoints:
        return NOT_STARTED
    step = int(checkpoints[-1].name.removeprefix("step-"))
    log = read_metrics(folder / METRICS_FILE) if (folder / METRICS_FILE).is_file() else []
    if epochs is None or not log or not log[-1].get("epoch"):
        return f"step {step}"
    return f"step {step} of {round(epochs * log[-1]['step'] / log[-1]['epoch'])}"
