"""Records by checkpoint and settings: taken where they are, made where they are not."""

from pathlib import Path

from rsa_eval.config import EvaluationConfig, result_settings
from rsa_eval.evaluators import EVALUATORS, Evaluator, Workspace, record_name
from rsa_eval.record import Record, read_record, write_record
from rsa_eval.subject import load_subject
from rsa_pretrain.checkpoint import BACKBONE_FILE, file_sha256
from rsa_pretrain.config import PretrainConfig
from rsa_pretrain.config_files import load_config, to_tree
from rsa_pretrain.device import resolve_device
from rsa_pretrain.distributed import is_main, process_group


def metrics_of_run(run_dir: Path, evaluator: str) -> dict[str, float]:
    """Return the metrics of a finished run, the headline first.

    The record is what ``rsa-eval knn RUN`` (or ``linear``, …) writes, and is kept where it does.
    One that is there is taken if it is of these weights with these settings, and replaced
    otherwise.

    Args:
        run_dir: Run folder.
        evaluator: One of ``EVALUATORS``.

    Raises:
        UserError: As the evaluation, or if a record there cannot be read.
    """
    run = load_config(PretrainConfig, run_dir / "config.yaml")
    config = load_config(EVALUATORS[evaluator].config, None, start={"data": to_tree(run.data)})
    path = run_dir / "records" / record_name(evaluator, config)
    record = recorded(path, file_sha256(run_dir / BACKBONE_FILE), config)
    if record is None:
        record = make_record_of(run_dir, EVALUATORS[evaluator], config, path)
    names = sorted(record.metrics, key=lambda name: name != record.headline)
    return {name: record.metrics[name].value for name in names}


def make_record_of(
    checkpoint: Path | None, evaluator: Evaluator, config: EvaluationConfig, path: Path
) -> Record:
    """Evaluate a checkpoint, and write the record; a stopped evaluation goes on.

    Args:
        checkpoint: Whatever ``load_subject`` takes; None for random weights.
        evaluator: What measures it.
        config: The evaluator's settings.
        path: Where the record goes, and beside it what else the evaluation leaves.

    Raises:
        UserError: As the evaluation.
    """
    with process_group(resolve_device(config.device)):
        record = evaluator.evaluate(load_subject(checkpoint, config), config, Workspace(path))
        if is_main():
            write_record(record, path)
    return record


def recorded(path: Path, sha256: str | None, config: EvaluationConfig) -> Record | None:
    """Return the record at ``path`` if it is of these weights with these settings.

    Args:
        path: Where the record would be.
        sha256: Hash of the weights; None for random ones, which the settings decide.
        config: The evaluation's settings.

    Raises:
        UserError: If the file there is no record.
    """
    if not path.exists():
        return None
    record = read_record(path)
    same = result_settings(record.config) == result_settings(to_tree(config))
    return record if same and record.model.sha256 == sha256 else None
