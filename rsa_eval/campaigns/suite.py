"""Plan a suite: several evaluations of several checkpoints, one trial per checkpoint.

Records are stored in ``OUT/CHECKPOINT/records/EVALUATION.json``. The name of a checkpoint's folder
ends in the hash of its weights, which keeps apart two runs of the same name and one run before
and after further training.
"""

from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path

from rsa_eval.campaigns.campaign import Outcome
from rsa_eval.campaigns.settings import PlannedEvaluation, SuiteConfig
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
    suite: SuiteConfig,
    evaluations: Sequence[PlannedEvaluation],
    checkpoints: Sequence[Path],
    out: Path,
    *,
    random_init: bool,
) -> list[Trial]:
    """Read each checkpoint once and append the random baselines.

    Args:
        suite: The suite.
        evaluations: Its evaluations, at least one.
        checkpoints: Anything ``load_weights`` takes.
        out: Folder of the trials.
        random_init: Add random weights of the suite's network if it names one, otherwise of each
            checkpoint's network.

    Raises:
        UserError: If a checkpoint cannot be used or is given twice, or there is nothing to
            evaluate.
    """
    trials: list[Trial] = []
    networks: dict[tuple[str, str], RandomBackboneConfig] = {}
    for checkpoint in checkpoints:
        loaded = load_weights(checkpoint, Pixels(*normalisation(suite.data)))
        for trial in trials:
            if trial.sha256 == loaded.sha256:
                raise UserError(
                    f"'{trial.checkpoint}' and '{checkpoint}' have the same weights; give each once"
                )
        name = f"{_own_name(loaded)}-{loaded.sha256[:_SHOWN_HASH]}"
        trial = Trial(name, out / name, tuple(evaluations), None, checkpoint, loaded.sha256)
        trials.append(trial)
        network = RandomBackboneConfig(arch=loaded.metadata.arch, stem=loaded.metadata.stem)
        networks[network.arch, network.stem] = network
    if random_init:
        for network in networks.values() if suite.backbone is None else [suite.backbone]:
            zero = "-zero" if network.zero_init_residual else ""
            name = f"random-{network.arch}-{network.stem}{zero}-seed{suite.seed}"
            chosen = tuple(evaluation.of_random(network) for evaluation in evaluations)
            trials.append(Trial(name, out / name, chosen))
    if not trials:
        raise UserError(
            "there is nothing to evaluate; give a CHECKPOINT, or --random-init with "
            "backbone.arch and backbone.stem"
        )
    return trials


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
