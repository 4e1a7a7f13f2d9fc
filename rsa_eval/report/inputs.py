"""Collect a report's inputs: the records and metric logs below the given paths."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rsa_eval.records.find import logs_and_records
from rsa_eval.records.record import Record, read_record
from rsa_pretrain.config import CONFIG_FILE, PretrainConfig
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
    return assemble(list_files(paths), read_file)


def list_files(paths: Sequence[Path]) -> Iterator[tuple[Path, Path]]:
    """Yield each record and log once, with the given path that it was found below.

    Raises:
        UserError: As ``collect``.
    """
    seen: set[Path] = set()
    for path in paths:
        for file in logs_and_records(path):
            if real_path(file) not in seen:
                seen.add(real_path(file))
                yield file, path


def assemble(
    files: Iterable[tuple[Path, Path]], read: Callable[[Path, Path], TrainingRun | Record]
) -> Inputs:
    """Read files; those that raise ``UserError`` are described instead.

    Args:
        files: As ``list_files`` yields them.
        read: Reads one, as ``read_file`` does.
    """
    inputs = Inputs()
    for file, given in files:
        try:
            found = read(file, given)
        except UserError as error:
            inputs.unreadable.append(str(error))
            continue
        if isinstance(found, TrainingRun):
            inputs.runs.append(found)
        else:
            inputs.records.append((file, found))
    inputs.records.sort(key=lambda found: (found[1].created, str(found[0])))
    return inputs


def read_file(file: Path, given: Path) -> TrainingRun | Record:
    """Read a record, or a log with what is beside it.

    Args:
        file: The file.
        given: The path below which it was found, from which a trial is named.

    Raises:
        UserError: If it is damaged.
    """
    if file.name == METRICS_FILE:
        return describe_run(file, given, read_metrics(file))
    return read_record(file)


def describe_run(file: Path, given: Path, metrics: list[dict[str, Any]]) -> TrainingRun:
    """Read what is beside a log.

    Args:
        file: The log.
        given: As of ``read_file``.
        metrics: The log's lines.

    Raises:
        UserError: If the config or the list of machines cannot be read.
    """
    config = file.parent / CONFIG_FILE
    text = read_text(config, what="config") if is_there(config) else None
    machines = tuple(read_machines(file.parent))
    name = _run_name(file.parent, given)
    return TrainingRun(file.parent, name, metrics, text, _pretraining(text), machines)


def trials_folder(run_dir: Path) -> Path | None:
    """Return the folder of a run's trials: x of x/seed-3; None for a run that is not a trial."""
    return run_dir.parent if _TRIAL.fullmatch(run_dir.name) else None


def _run_name(folder: Path, given: Path) -> str:
    """Name a run by its folder, a trial by its path below the given path."""
    if trials_folder(folder) is None:
        return folder.name or str(folder)
    below = folder.relative_to(given if given.is_dir() else given.parent)
    parts = below.parts if len(below.parts) > 1 else folder.absolute().parts[-2:]
    return "/".join(parts)


def _pretraining(text: str | None) -> PretrainConfig | None:
    try:
        tree = parse_yaml(text or "", CONFIG_FILE)
        return parse_tree(PretrainConfig, tree, CONFIG_FILE) if isinstance(tree, dict) else None
    except UserError:
        return None
