"""Every evaluation of a suite for several checkpoints, resumable as a whole.

The records lie in ``OUT/CHECKPOINT/records/EVALUATION.json``. The name of a checkpoint's folder
ends in the hash of its weights: those of two runs of one name, or of one run that was trained
further, do not meet.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

from rsa_eval.config import EvaluationConfig, RandomBackboneConfig
from rsa_eval.pretraining_run import run_folder_of
from rsa_eval.record import Record
from rsa_eval.run_records import make_record_of, recorded, tell_other_place
from rsa_eval.suite_config import Evaluation, SuiteConfig
from rsa_pretrain.checkpoint import LoadedBackbone
from rsa_pretrain.command_line import describe_error
from rsa_pretrain.data import normalisation
from rsa_pretrain.distributed import wait_for_all, world_size
from rsa_pretrain.errors import UserError
from rsa_pretrain.foreign.layout import Pixels
from rsa_pretrain.foreign.load import load_weights
from rsa_pretrain.text_table import TableFormat, render_table

_log = logging.getLogger(__name__)

_SHOWN_HASH = 8


@dataclass(frozen=True)
class Target:
    """What is evaluated: a checkpoint, or random weights."""

    name: str
    """Of its folder."""
    checkpoint: Path | None
    """None for random weights."""
    sha256: str | None
    """Of its weights; None for random ones."""
    random_backbone: RandomBackboneConfig | None
    """Network of random weights; None for a checkpoint, which names its own."""

    @property
    def label(self) -> str:
        """What a table calls it."""
        return self.name if self.checkpoint is None else str(self.checkpoint)

    def config_of(self, evaluation: Evaluation) -> EvaluationConfig:
        """Return an evaluation's settings for these weights."""
        if self.random_backbone is None:
            return evaluation.config
        return evaluation.of_random(self.random_backbone)


@dataclass(frozen=True)
class Task:
    """One record to be made."""

    target: Target
    evaluation: Evaluation
    config: EvaluationConfig
    """The evaluation's settings for the target."""
    path: Path
    """Of the record."""

    @property
    def key(self) -> tuple[str, str]:
        """Names of target and evaluation."""
        return self.target.name, self.evaluation.name

    def __str__(self) -> str:
        return f"{self.evaluation.name} of {self.target.name}"


@dataclass
class Outcome:
    """What came of the evaluations, by names of target and evaluation."""

    records: dict[tuple[str, str], Record] = field(default_factory=dict)
    failures: dict[tuple[str, str], str] = field(default_factory=dict)
    """Error messages."""


def plan_targets(
    suite: SuiteConfig, checkpoints: Sequence[Path], *, random_init: bool
) -> list[Target]:
    """Read each checkpoint once, and add the random baselines behind them.

    Args:
        suite: The suite.
        checkpoints: Anything ``load_weights`` takes.
        random_init: Add random weights of the suite's network, or else of each of the
            checkpoints' networks.

    Raises:
        UserError: If a checkpoint cannot be used or is given twice, or there is nothing to
            evaluate.
    """
    targets: list[Target] = []
    networks: dict[tuple[str, str], RandomBackboneConfig] = {}
    for checkpoint in checkpoints:
        loaded = load_weights(checkpoint, Pixels(*normalisation(suite.data)))
        for target in targets:
            if target.sha256 == loaded.sha256:
                raise UserError(
                    f"'{target.checkpoint}' and '{checkpoint}' are the same weights; give each once"
                )
        name = f"{_own_name(loaded)}-{loaded.sha256[:_SHOWN_HASH]}"
        targets.append(Target(name, checkpoint, loaded.sha256, None))
        network = RandomBackboneConfig(arch=loaded.metadata.arch, stem=loaded.metadata.stem)
        networks[network.arch, network.stem] = network
    if random_init:
        chosen = list(networks.values()) if suite.backbone is None else [suite.backbone]
        targets += [_random_target(network, suite.seed) for network in chosen]
    if not targets:
        raise UserError(
            "there is nothing to evaluate; give a CHECKPOINT, or --random-init with "
            "backbone.arch and backbone.stem"
        )
    return targets


def run_suite(targets: Sequence[Target], evaluations: Sequence[Evaluation], out: Path) -> Outcome:
    """Make every record that is not there; an evaluation that fails stops no other.

    Of several processes, all take part in every evaluation.

    Args:
        targets: What is evaluated.
        evaluations: How.
        out: Folder of the records.

    Raises:
        UserError: With several processes, at the first failure: the others may be waiting for
            this one in the middle of the evaluation.
    """
    tasks = [
        _plan_task(target, evaluation, out) for target in targets for evaluation in evaluations
    ]
    outcome = Outcome()
    _take_recorded(tasks, outcome)
    wait_for_all()  # before one of them writes a record that another would take for an old one
    for number, task in enumerate(tasks, start=1):
        if task.key in outcome.records:
            _log.info("%d of %d: %s was recorded before", number, len(tasks), task)
        elif task.key not in outcome.failures:
            _log.info("%d of %d: %s", number, len(tasks), task)
            with _failures_noted(task, outcome):
                outcome.records[task.key] = make_record_of(
                    task.target.checkpoint, task.evaluation.evaluator, task.config, task.path
                )
    return outcome


def suite_table(
    outcome: Outcome,
    targets: Sequence[Target],
    evaluations: Sequence[Evaluation],
    table_format: TableFormat = "text",
) -> str:
    """Lay out the headlines: a row per target, a column per evaluation."""
    columns = ["weights"]
    for evaluation in evaluations:
        records = [outcome.records.get((target.name, evaluation.name)) for target in targets]
        headings = [_heading(record) for record in records if record is not None]
        columns.append(" ".join([evaluation.name, *headings[:1]]))
    rows = [
        [target.label, *(_cell(outcome, (target.name, entry.name)) for entry in evaluations)]
        for target in targets
    ]
    return render_table(columns, rows, table_format)


def failure_lines(outcome: Outcome) -> list[str]:
    """Say once for each reason which evaluations failed by it."""
    failed: dict[tuple[str, str], list[str]] = {}
    for (target, evaluation), message in outcome.failures.items():
        failed.setdefault((message, target), []).append(evaluation)
    whose: dict[str, list[str]] = {}
    for (message, target), names in failed.items():
        whose.setdefault(message, []).append(f"{', '.join(names)} of {target}")
    return [f"{'; '.join(parts)}: {message}" for message, parts in whose.items()]


def _plan_task(target: Target, evaluation: Evaluation, out: Path) -> Task:
    path = out / target.name / "records" / f"{evaluation.name}.json"
    return Task(target, evaluation, target.config_of(evaluation), path)


def _take_recorded(tasks: Sequence[Task], outcome: Outcome) -> None:
    for task in tasks:
        with _failures_noted(task, outcome):
            record = recorded(task.path, task.target.sha256, task.config)
            if record is not None:
                tell_other_place(record, task.config, task.path)
                outcome.records[task.key] = record


@contextmanager
def _failures_noted(task: Task, outcome: Outcome) -> Iterator[None]:
    try:
        yield
    except (UserError, OSError) as error:
        message = describe_error(error)
        if world_size() > 1:
            raise UserError(f"{task}: {message}") from None
        known = message in outcome.failures.values()
        _log.warning("failed%s", " for the same reason" if known else f": {message}")
        outcome.failures[task.key] = message


def _own_name(loaded: LoadedBackbone) -> str:
    """Name a checkpoint after its run folder, or else after its file."""
    folder = run_folder_of(loaded.path)
    return loaded.path.stem if folder is None else folder.resolve().name


def _random_target(network: RandomBackboneConfig, seed: int) -> Target:
    zero = "-zero" if network.zero_init_residual else ""
    name = f"random-{network.arch}-{network.stem}{zero}-seed{seed}"
    return Target(name, None, None, network)


def _heading(record: Record) -> str:
    return f"{record.headline} ({record.metrics[record.headline].unit})"


def _cell(outcome: Outcome, key: tuple[str, str]) -> Decimal | None:
    record = outcome.records.get(key)
    # A decimal keeps its trailing zeros, so that the points stand below each other.
    return None if record is None else Decimal(f"{record.metrics[record.headline].value:.2f}")
