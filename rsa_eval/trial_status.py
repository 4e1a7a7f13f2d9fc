"""How far a trial has come."""

from pathlib import Path

from rsa_eval.record import read_record
from rsa_eval.run_records import recorded
from rsa_eval.trials import DETECTION, AnyTrial, DetectorTrial, Trial, record_path
from rsa_pretrain.checkpoint import BACKBONE_FILE, file_sha256, list_checkpoints
from rsa_pretrain.metrics_log import METRICS_FILE, read_metrics

NOT_STARTED = "not started"
RECORDED = "recorded"


def has_weights(trial: Trial) -> bool:
    """Return whether there is something to evaluate."""
    return trial.pretraining is None or (trial.folder / BACKBONE_FILE).exists()


def weights_sha256(trial: Trial) -> str | None:
    """Return the hash of the weights, which must exist; None for random ones."""
    if trial.pretraining is None:
        return trial.sha256
    return file_sha256(trial.folder / BACKBONE_FILE)


def status(trial: AnyTrial) -> str:
    """Return ``recorded``, ``not started``, or what is done.

    Raises:
        UserError: If a file of the trial is damaged.
    """
    if isinstance(trial, DetectorTrial):
        path = record_path(trial, DETECTION)
        if not path.exists():
            return _steps_taken(trial.folder, None)
        read_record(path)
        return RECORDED
    if not has_weights(trial):
        assert trial.pretraining is not None
        return _steps_taken(trial.folder, trial.pretraining.training.epochs)
    sha256 = weights_sha256(trial)
    done = [
        evaluation.name
        for evaluation in trial.evaluations
        if recorded(record_path(trial, evaluation.name), sha256, evaluation.config)
    ]
    if len(done) == len(trial.evaluations):
        return RECORDED
    if trial.pretraining is not None:
        return ", ".join(["trained", *done])
    return ", ".join(done) or NOT_STARTED


def _steps_taken(folder: Path, epochs: int | None) -> str:
    """Return how many steps of a training are saved, and of how many where the log tells."""
    checkpoints = list_checkpoints(folder)
    if not checkpoints:
        return NOT_STARTED
    step = int(checkpoints[-1].name.removeprefix("step-"))
    log = read_metrics(folder / METRICS_FILE) if (folder / METRICS_FILE).is_file() else []
    if epochs is None or not log or not log[-1].get("epoch"):
        return f"step {step}"
    return f"step {step} of {round(epochs * log[-1]['step'] / log[-1]['epoch'])}"
