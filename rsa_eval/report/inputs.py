"""Collect a report's inputs: the records and metric logs below the given paths."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rsa_eval.records.find import logs_and_records
from rsa_eval.records.record import Record, read_record
from rsa_pretrain.config import PretrainConfig
from rsa_pretrain.plumbing.config.files import parse_tree
from rsa_pretrain.plumbing.config.layers import parse_yaml
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.machines import Machine, read_machines
from rsa_pretrain.plumbing.metrics_log import METRICS_FILE, read_metrics
from rsa_pretrain.plumbing.regular_files import is_there
from rsa_pretrain.plumbing.text_files import read_text
from rsa_pretrain.plumbing.user_paths import real_path

_TRIAL = re.compile(r"seed-\d+")  # one of several trials of a row or of a sweep's cell


@dataclass(frozen=True)
class TrainingRun:
    """A training run's log."""

    folder: Path
    name: str
    """Name in the report."""
    metrics: list[dict[str, Any]]
    config: str | None
    """Text of its ``config.yaml``."""
    pretraining: PretrainConfig | None
    """The parsed config; None if it is not of pretraining, for example of detection."""
    machines: tuple[Machine, ...]
    """Machines it was trained on, in chronological order; empty if not recorded."""

    @property
    def machine(self) -> str:
        """Description of the machines; empty if not recorded."""
        return ", then ".join(
            machine.hardware
            + (f", {machine.num_processes} processes" if machine.num_processes > 1 else "")
            + (f", steps {machine.steps}" if machine.steps else "")
            for machine in self.machines
        )


@dataclass
class Inputs:
    """Records and runs, in a fixed order."""

    records: list[tuple[Path, Record]] = field(default_factory=list)
    runs: list[TrainingRun] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    """A description of each damaged file."""


def collect(paths: Sequence[Path]) -> Inputs:
    """Read every record and log below the given paths, each once, as ``logs_and_records`` does.

    Args:
        paths: Run folders, record files, or folders of either.

    Raises:
        UserError: If a path does not exist or contains nothing to report.
    """
    inputs = Inputs()
    seen: set[Path] = set()
    for path in paths:
        for file in logs_and_records(path):
            if real_path(file) not in seen:
                seen.add(real_path(file))
                _read(file, path, inputs)
    inputs.records.sort(key=lambda found: (found[1].created, str(found[0])))
    return inputs


def trials_folder(run_dir: Path) -> Path | None:
    """Return the folder of a run's trials: x of x/seed-3; None for a run that is not a trial."""
    return run_dir.parent if _TRIAL.fullmatch(run_dir.name) else None


def _read(file: Path, given: Path, inputs: Inputs) -> None:
    try:
        if file.name == METRICS_FILE:
            inputs.runs.append(_read_run(file, _run_name(file.parent, given)))
        else:
            inputs.records.append((file, read_record(file)))
    except UserError as error:
        inputs.unreadable.append(str(error))


def _run_name(folder: Path, given: Path) -> str:
    """Name a run by its folder, a trial by its path below the given path."""
    if trials_folder(folder) is None:
        return folder.name or str(folder)
    below = folder.relative_to(given if given.is_dir() else given.parent)
    parts = below.parts if len(below.parts) > 1 else folder.absolute().parts[-2:]
    return "/".join(parts)


def _read_run(file: Path, name: str) -> TrainingRun:
    metrics = read_metrics(file)
    config = file.parent / "config.yaml"
    text = read_text(config, what="config") if is_there(config) else None
    machines = tuple(read_machines(file.parent))
    return TrainingRun(file.parent, name, metrics, text, _pretraining(text), machines)


def _pretraining(text: str | None) -> PretrainConfig | None:
    try:
        tree = parse_yaml(text or "", "config.yaml")
        return parse_tree(PretrainConfig, tree, "config.yaml") if isinstance(tree, dict) else None
    except UserError:
        return None
