"""A row with one seed: where it lies, its settings, and how far it has come.

``OUT/ROW/seed-S`` is an ordinary run folder, with its records in ``records/`` and the features they
share in ``features/``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rsa_eval.config import RandomBackboneConfig
from rsa_eval.record import read_record
from rsa_eval.reproduction.rows import Detection, Pretraining, Row
from rsa_eval.run_records import recorded
from rsa_eval.suite import Target
from rsa_eval.suite_config import Evaluation, SuiteConfig, load_evaluations
from rsa_pretrain.checkpoint import BACKBONE_FILE, file_sha256, list_checkpoints
from rsa_pretrain.config import RESUMABLE_CHANGES, PretrainConfig, result_changes
from rsa_pretrain.config_files import load_config, to_tree
from rsa_pretrain.errors import UserError
from rsa_pretrain.metrics_log import METRICS_FILE, read_metrics
from rsa_pretrain.shipped_configs import find_config

NOT_STARTED = "not started"
RECORDED = "recorded"

CHANGEABLE = sorted(RESUMABLE_CHANGES - {"output_dir"})
"""Settings of a backbone's row that leave it what it is."""

_OWN_OPTIONS = {"seed": "--seeds", "output_dir": "--out"}
_DETECTION_RECORD = Path("records") / "detection.json"


@dataclass(frozen=True)
class BackboneTrial:
    """A pretraining run, or random weights, and their evaluations."""

    name: str
    """``ROW/seed-S``."""
    config: PretrainConfig
    """The run; ``output_dir`` is the trial's folder."""
    evaluations: tuple[Evaluation, ...]
    trained: bool
    """False: random weights of the run's network."""

    @property
    def folder(self) -> Path:
        """Where everything of it lies."""
        return self.config.output_dir

    @property
    def has_weights(self) -> bool:
        """Whether there is something to evaluate."""
        return not self.trained or (self.folder / BACKBONE_FILE).exists()

    def target(self) -> Target:
        """Return what is evaluated; the weights must be there."""
        name = self.folder.name
        if self.trained:
            return Target(name, self.folder, file_sha256(self.folder / BACKBONE_FILE), None)
        network = RandomBackboneConfig(**to_tree(self.config.backbone))
        return Target(name, None, None, network)

    def status(self) -> str:
        """Say how far it has come."""
        if not self.has_weights:
            return _steps_taken(self.folder, self.config.training.epochs)
        target = self.target()
        done = [
            evaluation.name
            for evaluation in self.evaluations
            if recorded(
                self.folder / "records" / f"{evaluation.name}.json",
                target.sha256,
                target.config_of(evaluation),
            )
        ]
        if len(done) == len(self.evaluations):
            return RECORDED
        return ", ".join(["trained" if self.trained else NOT_STARTED, *done])


@dataclass(frozen=True)
class DetectorTrial:
    """A detector fine-tuned from a backbone."""

    name: str
    """``ROW/seed-S``."""
    folder: Path
    """Where everything of it lies."""
    config: Path
    """Its recipe."""
    seed: int
    start: Path | None
    """Run folder of the backbone; None starts from random weights."""
    overrides: tuple[str, ...]
    """``key=value`` words for the recipe."""

    def status(self) -> str:
        """Say how far it has come."""
        if (self.folder / _DETECTION_RECORD).exists():
            read_record(self.folder / _DETECTION_RECORD)
            return RECORDED
        return _steps_taken(self.folder, None)


Trial = BackboneTrial | DetectorTrial


def plan_trial(row: Row, seed: int, out: Path, overrides: Sequence[str]) -> Trial:
    """Resolve a row's settings, so that a mistake shows before any work is done.

    Args:
        row: Of a method that is here.
        seed: Of the run and its evaluations.
        out: Folder of all rows.
        overrides: ``key=value`` words for the row's recipe.

    Raises:
        UserError: If a word is malformed, or makes another run than the row's.
    """
    name = f"{row.home}/seed-{seed}"
    _refuse_own_options(overrides)
    if isinstance(row.work, Detection):
        start = None if row.work.start is None else out / row.work.start / f"seed-{seed}"
        return DetectorTrial(name, out / name, row.work.config, seed, start, tuple(overrides))
    assert row.work is not None
    config = run_config(row, row.work, overrides)
    config = config.model_copy(update={"seed": seed, "output_dir": out / name})
    return BackboneTrial(name, config, _evaluations(row.work, config), row.work.trained)


def run_config(row: Row, work: Pretraining, overrides: Sequence[str]) -> PretrainConfig:
    """Return the settings of a row's run, with the recipe's seed and folder.

    Raises:
        UserError: If a word is malformed, or makes another run than the row's.
    """
    config = work.load(overrides)
    changed = result_changes(to_tree(work.config), to_tree(config))
    if changed:
        raise UserError(
            f"{row.name} would not be what it says with {', '.join(changed)}; train that with "
            f"'rsa-pretrain run {work.name} …'"
        )
    return config


def _evaluations(work: Pretraining, config: PretrainConfig) -> tuple[Evaluation, ...]:
    suite = load_config(
        SuiteConfig,
        work.suite,
        [f"seed={config.seed}", f"device={config.training.device}"],
        start={"data": to_tree(config.data)},
    )
    folder = find_config(work.suite).parent
    return tuple(load_evaluations(suite, folder, config.output_dir / "features"))


def _refuse_own_options(overrides: Sequence[str]) -> None:
    for word in overrides:
        key = word.partition("=")[0].strip()
        if key in _OWN_OPTIONS:
            raise UserError(f"'{key}' differs from row to row; use {_OWN_OPTIONS[key]}")


def _steps_taken(folder: Path, epochs: int | None) -> str:
    """Say how many steps of a training are saved, and of how many where the log tells."""
    checkpoints = list_checkpoints(folder)
    if not checkpoints:
        return NOT_STARTED
    step = int(checkpoints[-1].name.removeprefix("step-"))
    log = read_metrics(folder / METRICS_FILE) if (folder / METRICS_FILE).is_file() else []
    if epochs is None or not log or not log[-1].get("epoch"):
        return f"step {step}"
    return f"step {step} of {round(epochs * log[-1]['step'] / log[-1]['epoch'])}"
