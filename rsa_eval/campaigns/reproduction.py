"""Plan a row with one seed as a trial: its folder and settings.

``OUT/ROW/seed-S`` is an ordinary run folder, with its records in ``records/`` and their shared
features in ``features/``.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from rsa_eval.campaigns.settings import PlannedEvaluation, SuiteConfig, load_evaluations
from rsa_eval.campaigns.trials import AnyTrial, DetectorTrial, Trial, refuse_own_keys
from rsa_eval.config import RandomBackboneConfig
from rsa_eval.paper.matching import training_departures
from rsa_eval.paper.rows import Detection, PaperRow, Pretraining
from rsa_pretrain.config import (
    CONFIG_FILE,
    RESUMABLE_CHANGES,
    SPEED_SETTINGS,
    PretrainConfig,
    load_run,
    refuse_another_run,
    result_changes,
)
from rsa_pretrain.plumbing.config.files import flatten, load_config, to_tree
from rsa_pretrain.plumbing.config.shipped import find_config
from rsa_pretrain.plumbing.errors import UserError

CHANGEABLE = sorted(RESUMABLE_CHANGES - {"output_dir"})
"""Settings that may be overridden without affecting a row's result."""


def plan_trial(row: PaperRow, seed: int, out: Path, overrides: Sequence[str]) -> AnyTrial:
    """Resolve a row's settings, so that mistakes surface before any work is done.

    Args:
        row: A row with a recipe.
        seed: Seed of the run and its evaluations.
        out: Folder of all rows.
        overrides: ``key=value`` words for the row's recipe.

    Raises:
        UserError: If a word is malformed or makes another run of the row's, or the trial's folder
            contains a run with other settings.
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
    departures = tuple(training_departures(to_tree(config), row.work.config))
    return Trial(name, out / name, tuple(evaluations), config, departures=departures)


def run_config(row: PaperRow, work: Pretraining, overrides: Sequence[str]) -> PretrainConfig:
    """Return the settings of a row's run, with the recipe's seed and folder.

    Raises:
        UserError: If a word is malformed or makes another run of the row's.
    """
    config = work.load(overrides)
    may_differ = RESUMABLE_CHANGES | SPEED_SETTINGS
    changed = result_changes(to_tree(work.config), to_tree(config), may_differ)
    if changed:
        raise UserError(
            f"{', '.join(changed)} would change the run of {row.name}; train that with "
            f"'rsa-pretrain run {work.name} …'"
        )
    return config


def speed_words(folder: Path) -> list[str]:
    """Return the speed settings of the run in a folder as ``key=value`` words; none without a run.

    Raises:
        UserError: If its settings cannot be read.
    """
    if not (folder / CONFIG_FILE).exists():
        return []
    settings = flatten(to_tree(load_run(folder)))
    return [f"{key}={json.dumps(settings[key])}" for key in sorted(SPEED_SETTINGS)]


def _evaluations(work: Pretraining, config: PretrainConfig) -> list[PlannedEvaluation]:
    suite = load_config(
        SuiteConfig,
        work.suite,
        [f"seed={config.seed}", f"device={config.training.device}"],
        start={"data": to_tree(config.data)},
    )
    folder = find_config(work.suite).parent
    return load_evaluations(suite, folder, config.output_dir / "features")
