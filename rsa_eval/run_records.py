"""The record of a run by an evaluator, made unless the run's folder holds it."""

from pathlib import Path

from rsa_eval.config import KNNConfig, LinearConfig
from rsa_eval.evaluations import evaluate_knn, evaluate_linear
from rsa_eval.record import Record, read_record, write_record
from rsa_eval.subject import load_subject
from rsa_pretrain.checkpoint import BACKBONE_FILE, file_sha256
from rsa_pretrain.config import PretrainConfig
from rsa_pretrain.config_files import load_config, to_tree

EVALUATORS = ("knn", "linear")


def metrics_of_run(run_dir: Path, evaluator: str) -> dict[str, float]:
    """Return the metrics of a finished run, the headline first, in percent.

    The record is what ``rsa-eval knn RUN`` (or ``linear``) writes, and is kept where it does. One
    that is there is taken if it is of these weights with these settings, and replaced otherwise.

    Args:
        run_dir: Run folder.
        evaluator: One of ``EVALUATORS``.

    Raises:
        UserError: As the evaluation, or if a record there cannot be read.
    """
    run = load_config(PretrainConfig, run_dir / "config.yaml")
    path = run_dir / "records" / f"{evaluator}-{run.data.name}.json"
    start = {"data": to_tree(run.data)}
    config: KNNConfig | LinearConfig
    if evaluator == "knn":
        config = load_config(KNNConfig, None, start=start)
    else:
        config = load_config(LinearConfig, None, start=start)
    record = read_record(path) if path.exists() else None
    weights = file_sha256(run_dir / BACKBONE_FILE)
    if record is None or (record.model.sha256, record.config) != (weights, to_tree(config)):
        record = _evaluate(run_dir, config)
        write_record(record, path)
    names = sorted(record.metrics, key=lambda name: name != record.headline)
    return {name: record.metrics[name].value for name in names}


def _evaluate(run_dir: Path, config: KNNConfig | LinearConfig) -> Record:
    subject = load_subject(run_dir, config)
    if isinstance(config, KNNConfig):
        return evaluate_knn(subject, config)
    return evaluate_linear(subject, config)
