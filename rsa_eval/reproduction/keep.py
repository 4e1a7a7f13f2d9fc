"""What is kept of a trial: no weights, no pictures."""

from pathlib import Path

from rsa_eval.trials import AnyTrial
from rsa_pretrain.atomic_files import write_text
from rsa_pretrain.machines import read_machines
from rsa_pretrain.metrics_log import METRICS_FILE, read_metrics

_KEPT = ("config.yaml", "metrics.jsonl", "machines.json", "records/*.json")


def keep(trial: AnyTrial, results: Path) -> None:
    """Copy the small files of a trial to ``RESULTS/NAME``.

    Raises:
        UserError: If a log is damaged, which no page could read.
    """
    read_machines(trial.folder)
    if (trial.folder / METRICS_FILE).is_file():
        read_metrics(trial.folder / METRICS_FILE)
    for pattern in _KEPT:
        for path in sorted(trial.folder.glob(pattern)):
            kept = results / trial.name / path.relative_to(trial.folder)
            write_text(kept, path.read_text(encoding="utf-8"))
