"""A row with one seed as a trial: where it lies and its settings.

``OUT/ROW/seed-S`` is an ordinary run folder, with its records in ``records/`` and the features they
share in ``features/``.
"""

from collections.abc import Sequence
from pathlib import Path

from rsa_eval.campaigns.settings import Evaluation, SuiteConfig, load_evaluations
from rsa_eval.campaigns.trials import AnyTrial, DetectorTrial, Trial, refuse_own_keys
from rsa_eval.config import RandomBackboneConfig
from rsa_eval.paper.rows import Detection, Pretraining, Row
from rsa_pretrain.config import (
    RESUMABLE_CHANGES,
    PretrainConfig,
    refuse_another_run,
    result_changes,
)
from rsa_pretrain.plumbing.config.files import load_config, to_tree
from rsa_pretrain.plumbing.config.shipped import find_config
from rsa_pretrain.plumbing.errors import UserError

CHANGEABLE = sorted(RESUMABLE_CHANGES - {"output_dir"})
"""Settings of a backbone's row that leave it what it is."""


def plan_trial(row: Row, seed: int, out: Path, overrides: Sequence[str]) -> AnyTrial:
    """Resolve a row's settings, so that a mistake shows before any work is done.

    Args:
        row: Of a method that is here.
        seed: Of the run and its evaluations.
        out: Folder of all rows.
        overrides: ``key=value`` words for the row's recipe.

    Raises:
        UserError: If a word is malformed or makes another run than the row's, or the trial's folder
            holds a run of other settings.
    """
    name = f"{row.home}/seed-{seed}"
    refuse_own_keys(word.partition("=")[0].strip() for word in overrides)
    if isinstance(row.work, Detection):
        start = None if row.work.start is None else out / row.work.start / f"seed-{seed}"
        return DetectorTrial(name, out / name, row.work.config, seed, start, tuple(overrides))
    assert row.work is not None
    config = run_config(row, row.work, overrides)
    config = config.model_copy(update={"seed": seed, "output_dir": out / name})
    evaluations = _evaluations(row.work, config)
    if not row.work.trained:
        network = RandomBackboneConfig(**to_tree(config.backbone))
        return Trial(name, out / name, tuple(each.of_random(network) for each in evaluations))
    refuse_another_run(config)
    return Trial(name, out / name, tuple(evaluations), config)


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


def _evaluations(work: Pretraining, config: PretrainConfig) -> list[Evaluation]:
    suite = load_config(
        SuiteConfig,
        work.suite,
        [f"seed={config.seed}", f"device={config.training.device}"],
        start={"data": to_tree(config.data)},
    )
    folder = find_config(work.suite).parent
    return load_evaluations(suite, folder, config.output_dir / "features")
