"""Plan a suite: several evaluations of several checkpoints, one trial per checkpoint.

Records are stored in ``OUT/CHECKPOINT/records/EVALUATION.json``. The name of a checkpoint's folder
ends in the hash of its weights, which keeps apart two runs of the same name and one run before
and after further training.
"""

import logging
import re
from collections.abc import Iterable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import TypeAlias

from rsa_eval.campaigns.campaign import Outcome
from rsa_eval.campaigns.settings import PlannedEvaluation, SharedSettings
from rsa_eval.campaigns.trials import Trial
from rsa_eval.config import RandomBackboneConfig
from rsa_eval.features.networks.spec import Checkpoint, NetworkSpec
from rsa_eval.features.subject import load_subject
from rsa_eval.records.pretraining_run import run_folder_of
from rsa_eval.records.record import Record
from rsa_pretrain.data.open_images import normalisation
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.text_table import TableFormat, render_table
from rsa_pretrain.plumbing.user_paths import real_path
from rsa_pretrain.weights.checkpoint import LoadedBackbone
from rsa_pretrain.weights.foreign.layout import Pixels
from rsa_pretrain.weights.load import load_weights

_SHOWN_HASH = 8
_NOT_IN_FILE_NAMES = re.compile(r"[^A-Za-z0-9_.-]+")
_log = logging.getLogger(__name__)

Baseline: TypeAlias = RandomBackboneConfig | NetworkSpec
"""A network with random weights: a ResNet, or another library's."""


def plan_suite(
    suite: SharedSettings,
    evaluations: Sequence[PlannedEvaluation],
    checkpoints: Sequence[Checkpoint],
    out: Path,
    *,
    random_init: bool,
) -> list[Trial]:
    """Read each checkpoint once and append the random baselines.

    Args:
        suite: The images, and the network and seed of random weights.
        evaluations: The evaluations, at least one.
        checkpoints: Anything ``load_subject`` takes.
        out: Folder of the trials.
        random_init: Add random weights of the suite's network if it names one, otherwise of each
            checkpoint's network.

    Raises:
        UserError: If a checkpoint cannot be used or is given twice, or there is nothing to
            evaluate.
    """
    trained, bare = split_bare(checkpoints, random_init=random_init)
    planned = plan_checkpoints(suite, evaluations, trained, out)
    trials = [trial for trial, _ in planned]
    if random_init:
        trials += plan_random(suite, networks_of(suite, planned, bare), evaluations, out)
    refuse_nothing(trials)
    return trials


def split_bare(
    checkpoints: Iterable[Checkpoint], *, random_init: bool
) -> tuple[list[Checkpoint], list[NetworkSpec]]:
    """Separate networks given without weights, of which random ones are wanted.

    Returns:
        The other checkpoints, and those networks; all and none where no random weights are wanted.
    """
    trained: list[Checkpoint] = []
    bare: list[NetworkSpec] = []
    for checkpoint in checkpoints:
        if random_init and isinstance(checkpoint, NetworkSpec) and checkpoint.lacks_weights:
            bare.append(checkpoint)
        else:
            trained.append(checkpoint)
    return trained, bare


def plan_checkpoints(
    settings: SharedSettings,
    evaluations: Sequence[PlannedEvaluation],
    checkpoints: Sequence[Checkpoint],
    out: Path,
) -> list[tuple[Trial, Baseline | None]]:
    """Read each checkpoint once and return its trial, with random weights of its network.

    Returns:
        None in place of networks that have no random weights.

    Raises:
        UserError: If a checkpoint cannot be used or is given twice.
    """
    planned: list[tuple[Trial, Baseline | None]] = []
    for checkpoint in checkpoints:
        trial, network = (
            _plan_other(evaluations, checkpoint, out)
            if isinstance(checkpoint, NetworkSpec)
            else _plan_resnet(settings, evaluations, checkpoint, out)
        )
        for other, _ in planned:
            if (other.sha256, other.other_network) == (trial.sha256, trial.other_network):
                if str(other.checkpoint) == str(checkpoint):
                    raise UserError(f"'{checkpoint}' is given twice; give each checkpoint once")
                raise UserError(
                    f"'{other.checkpoint}' and '{checkpoint}' have the same weights; give each once"
                )
        planned.append((trial, network))
    return planned


def _plan_resnet(
    settings: SharedSettings, evaluations: Sequence[PlannedEvaluation], path: Path, out: Path
) -> tuple[Trial, Baseline]:
    loaded = load_weights(path, Pixels(*normalisation(settings.data)))
    name = f"{_own_name(loaded)}-{loaded.sha256[:_SHOWN_HASH]}"
    network = RandomBackboneConfig.named(loaded.metadata.arch, loaded.metadata.stem)
    trial = Trial(
        name,
        out / name,
        tuple(evaluations),
        checkpoint=path,
        file=loaded.path,
        sha256=loaded.sha256,
    )
    return trial, network


def _plan_other(
    evaluations: Sequence[PlannedEvaluation], spec: NetworkSpec, out: Path
) -> tuple[Trial, Baseline | None]:
    model = load_subject(spec, evaluations[0].config).model
    assert model.sha256 is not None
    name = f"{_file_name(spec)}-{model.sha256[:_SHOWN_HASH]}"
    trial = Trial(
        name,
        out / name,
        tuple(evaluations),
        checkpoint=spec,
        sha256=model.sha256,
        other_network=spec.network,
    )
    return trial, spec.randomised()


def networks_of(
    settings: SharedSettings,
    planned: Sequence[tuple[Trial, Baseline | None]],
    bare: Sequence[NetworkSpec] = (),
) -> list[Baseline]:
    """Return the networks of the baselines: the one that is set, or each checkpoint's once.

    Args:
        settings: May name the network.
        planned: The checkpoints' trials and networks.
        bare: Networks given without weights, which are baselines in any case.
    """
    found = {_key(network): network.randomised() for network in bare}
    if settings.backbone is not None:
        networks: list[Baseline | None] = [settings.backbone]
    else:
        networks = [network for _, network in planned]
    unknown = [trial.name for trial, network in planned if network is None]
    if unknown and settings.backbone is None:
        _log.info(
            "no random weights of %s: only timm and torchvision have them", ", ".join(unknown)
        )
    every: dict[object, Baseline | None] = {
        **found,
        **{_key(network): network for network in networks if network is not None},
    }
    return [network for network in every.values() if network is not None]


def _key(network: Baseline) -> object:
    if isinstance(network, NetworkSpec):
        return network.network
    return network.name, network.stem


def plan_random(
    settings: SharedSettings,
    networks: Sequence[Baseline],
    evaluations: Sequence[PlannedEvaluation],
    out: Path,
) -> list[Trial]:
    """Return a trial of random weights per network."""
    trials = []
    for network in networks:
        name = baseline_name("random", network, settings.seed)
        if isinstance(network, NetworkSpec):
            trials.append(random_trial(name, out, network, evaluations))
        else:
            chosen = tuple(evaluation.of_random(network) for evaluation in evaluations)
            trials.append(Trial(name, out / name, chosen))
    return trials


def random_trial(
    name: str,
    out: Path,
    network: NetworkSpec,
    evaluations: Sequence[PlannedEvaluation],
    departures: tuple[str, ...] = (),
) -> Trial:
    """Return a trial of random weights of another library's network."""
    return Trial(
        name,
        out / name,
        tuple(evaluations),
        checkpoint=network,
        departures=departures,
        other_network=network.network,
    )


def _file_name(spec: NetworkSpec) -> str:
    return _NOT_IN_FILE_NAMES.sub("-", spec.network)


def baseline_name(kind: str, network: Baseline, seed: int) -> str:
    """Return the name of a baseline's trial and folder."""
    if isinstance(network, NetworkSpec):
        return f"{kind}-{_file_name(network)}-seed{seed}"
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
            trial.label,
            *(_cell(outcome.records.get((trial.name, name))) for name in trial.record_names),
        ]
        for trial in trials
    ]
    return render_table(columns, rows, table_format, columns[1:])


def _own_name(loaded: LoadedBackbone) -> str:
    """Name a checkpoint after its run folder or, without one, after its file."""
    folder = run_folder_of(loaded.path)
    return loaded.path.stem if folder is None else real_path(folder).name


def _heading(record: Record) -> str:
    return f"{record.headline} ({record.metrics[record.headline].unit})"


def _cell(record: Record | None) -> Decimal | str | None:
    if record is None:
        return None
    metric = record.metrics[record.headline]
    # A Decimal keeps its trailing zeros, so that the decimal points align.
    return Decimal(f"{metric.value:.2f}") if metric.interval is None else metric.text
