"""Plan a suite: several evaluations of several checkpoints, one trial per checkpoint.

Records are stored in ``OUT/CHECKPOINT/records/EVALUATION.json``. The name of a checkpoint's folder
ends in the hash of its weights, which keeps apart two runs of the same name and one run before
and after further training.
"""

from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path

from rsa_eval.campaigns.campaign import Outcome
from rsa_eval.campaigns.settings import PlannedEvaluation, SharedSettings
from rsa_eval.campaigns.trials import Trial
from rsa_eval.config import RandomBackboneConfig
from rsa_eval.records.pretraining_run import run_folder_of
from rsa_eval.records.record import Record
from rsa_pretrain.data.open_images import normalisation
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.text_table import TableFormat, render_table
from rsa_pretrain.weights.checkpoint import LoadedBackbone
from rsa_pretrain.weights.foreign.layout import Pixels
from rsa_pretrain.weights.foreign.load import load_weights

_SHOWN_HASH = 8


def plan_suite(
    suite: SharedSettings,
    evaluations: Sequence[PlannedEvaluation],
    checkpoints: Sequence[Path],
    out: Path,
    *,
    random_init: bool,
) -> list[Trial]:
    """Read each checkpoint once and append the random baselines.

    Args:
        suite: The images, and the network and seed of random weights.
        evaluations: The evaluations, at least one.
        checkpoints: Anything ``load_weights`` takes.
        out: Folder of the trials.
        random_init: Add random weights of the suite's network if it names one, otherwise of each
            checkpoint's network.

    Raises:
        UserError: If a checkpoint cannot be used or is given twice, or there is nothing to
            evaluate.
    """
    planned = plan_checkpoints(suite, evaluations, checkpoints, out)
    trials = [trial for trial, _ in planned]
    if random_init:
        trials += plan_random(suite, networks_of(suite, planned), evaluations, out)
    refuse_nothing(trials)
    return trials


def plan_checkpoints(
    settings: SharedSettings,
    evaluations: Sequence[PlannedEvaluation],
    checkpoints: Sequence[Path],
    out: Path,
) -> list[tuple[Trial, RandomBackboneConfig]]:
    """Read each checkpoint once and return its trial, with random weights of its network.

    Raises:
        UserError: If a checkpoint cannot be used or is given twice.
    """
    planned: list[tuple[Trial, RandomBackboneConfig]] = []
    for checkpoint in checkpoints:
        loaded = load_weights(checkpoint, Pixels(*normalisation(settings.data)))
        for trial, _ in planned:
            if trial.sha256 == loaded.sha256:
                raise UserError(
                    f"'{trial.checkpoint}' and '{checkpoint}' have the same weights; give each once"
                )
        name = f"{_own_name(loaded)}-{loaded.sha256[:_SHOWN_HASH]}"
        network = RandomBackboneConfig.named(loaded.metadata.arch, loaded.metadata.stem)
        trial = Trial(name, out / name, tuple(evaluations), None, checkpoint, loaded.sha256)
        planned.append((trial, network))
    return planned


def networks_of(
    settings: SharedSettings, planned: Sequence[tuple[Trial, RandomBackboneConfig]]
) -> list[RandomBackboneConfig]:
    """Return the networks of the baselines: the one that is set, or each checkpoint's once."""
    if settings.backbone is not None:
        return [settings.backbone]
    return list({(network.name, network.stem): network for _, network in planned}.values())


def plan_random(
    settings: SharedSettings,
    networks: Sequence[RandomBackboneConfig],
    evaluations: Sequence[PlannedEvaluation],
    out: Path,
) -> list[Trial]:
    """Return a trial of random weights per network."""
    trials = []
    for network in networks:
        name = baseline_name("random", network, settings.seed)
        chosen = tuple(evaluation.of_random(network) for evaluation in evaluations)
        trials.append(Trial(name, out / name, chosen))
    return trials


def baseline_name(kind: str, network: RandomBackboneConfig, seed: int) -> str:
    """Return the name of a baseline's trial and folder."""
    zero = "-zero" if network.zero_init_residual else ""
    return f"{kind}-{network.name}-{network.stem}{zero}-seed{seed}"


def refuse_nothing(trials: Sequence[Trial]) -> None:
    """Refuse a campaign without trials.

    Raises:
        UserError: If there are none.
    """
    if not trials:
        raise UserError(
            "there is nothing to evaluate; give a CHECKPOINT, or --random-init with "
            "backbone.arch and backbone.stem"
        )


def suite_table(
    trials: Sequence[Trial], outcome: Outcome, table_format: TableFormat = "text"
) -> str:
    """Format the headlines as a table: a row per trial, a column per evaluation."""
    columns = ["weights"]
    for evaluation in trials[0].record_names:
        found = (outcome.records.get((trial.name, evaluation)) for trial in trials)
        headings = [_heading(record) for record in found if record is not None]
        columns.append(" ".join([evaluation, *headings[:1]]))
    rows = [
        [
            str(trial.checkpoint or trial.name),
            *(_cell(outcome.records.get((trial.name, name))) for name in trial.record_names),
        ]
        for trial in trials
    ]
    return render_table(columns, rows, table_format, columns[1:])


def _own_name(loaded: LoadedBackbone) -> str:
    """Name a checkpoint after its run folder or, without one, after its file."""
    folder = run_folder_of(loaded.path)
    return loaded.path.stem if folder is None else folder.resolve().name


def _heading(record: Record) -> str:
    return f"{record.headline} ({record.metrics[record.headline].unit})"


def _cell(record: Record | None) -> Decimal | str | None:
    if record is None:
        return None
    metric = record.metrics[record.headline]
    # A Decimal keeps its trailing zeros, so that the decimal points align.
    return Decimal(f"{metric.value:.2f}") if metric.interval is None else metric.text
