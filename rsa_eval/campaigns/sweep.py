"""Plan a grid of runs: every combination of swept values, each with every seed.

Each run has its own folder, ``OUT/key=value,…/seed-S``, and equals a single run with the same
overrides.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from rsa_eval.campaigns.settings import PlannedEvaluation
from rsa_eval.campaigns.trials import Trial, refuse_own_keys
from rsa_eval.evaluators import EVALUATORS, record_name
from rsa_pretrain.config import PretrainConfig, refuse_another_run
from rsa_pretrain.plumbing.config.files import flatten, load_config, to_tree
from rsa_pretrain.plumbing.config.layers import text_override
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.text_table import render_table

if TYPE_CHECKING:
    from rsa_eval.campaigns.campaign import Outcome

_BRACKETS = {"[": "]", "{": "}"}


@dataclass(frozen=True)
class Cell:
    """One combination of swept values, run with every seed."""

    values: Mapping[str, Any]
    """By dotted key, as the config resolves them; empty if only seeds differ."""
    trials: tuple[Trial, ...]
    """One per seed."""


@dataclass(frozen=True)
class Sweep:
    """All runs of a sweep."""

    folder: Path
    cells: tuple[Cell, ...]

    @property
    def trials(self) -> list[Trial]:
        """Every run, in execution order."""
        return [trial for cell in self.cells for trial in cell.trials]


def plan_sweep(
    config_path: Path,
    words: Sequence[str],
    seeds: Sequence[int] | None,
    folder: Path | None,
    evaluators: Sequence[str],
) -> Sweep:
    """Resolve every run of a sweep, so that mistakes surface before any of them starts.

    Args:
        config_path: The config that all runs share.
        words: ``key=value`` overrides all runs, ``key=v1,v2,…`` is swept.
        seeds: Seeds of each cell; None takes the config's seed.
        folder: Folder of the runs; None appends ``-sweep`` to the config's ``output_dir``.
        evaluators: Some of ``EVALUATORS``, at least one.

    Raises:
        UserError: If a word, an evaluator or a resolved config is invalid, two cells are the same
            run, or a folder contains a run with other settings.
    """
    unknown = [name for name in evaluators if name not in EVALUATORS]
    if unknown:
        raise UserError(f"--evaluator '{unknown[0]}' should be one of {', '.join(EVALUATORS)}")
    choices = [_choices(word) for word in words]
    _check_keys([key for key, _ in choices], [key for key, values in choices if len(values) > 1])
    fixed = [f"{key}={values[0]}" for key, values in choices if len(values) == 1]
    swept = [(key, values) for key, values in choices if len(values) > 1]
    first = [f"{key}={values[0]}" for key, values in swept]
    plain = load_config(PretrainConfig, config_path, [*fixed, *first])
    folder = folder or Path(f"{plain.output_dir}-sweep")
    keys = [key for key, _ in swept]
    cells = []
    for values in itertools.product(*(values for _, values in swept)):
        settings = [f"{key}={value}" for key, value in zip(keys, values, strict=True)]
        # A value may contain characters that are not allowed in a folder name.
        place = quote(",".join(settings), safe="=,.[]{}:+ ")
        runs = [
            _run(config_path, [*fixed, *settings], seed, folder / place)
            for seed in seeds or [plain.seed]
        ]
        leaves = flatten(to_tree(runs[0]))
        resolved = {key: leaves.get(key, value) for key, value in zip(keys, values, strict=True)}
        cells.append(Cell(resolved, tuple(_trial(run, folder, evaluators) for run in runs)))
    sweep = Sweep(folder, tuple(cells))
    _refuse_same_runs(sweep)
    return sweep


def sweep_table(sweep: Sweep, outcome: "Outcome") -> str:
    """Return one line per cell and metric: mean ± sample standard deviation, n, each seed's."""
    from rsa_eval.records.groups import group_records

    keys = list(sweep.cells[0].values)
    rows: list[list[Any]] = []
    for cell in sweep.cells:
        values = [cell.values[key] for key in keys]
        found = [
            (trial.folder, outcome.records[trial.name, name])
            for name in cell.trials[0].record_names
            for trial in cell.trials
            if (trial.name, name) in outcome.records
        ]
        if not found:
            rows.append([*values, None, None, 0, "failed"])
        for group in group_records(found):
            record = group.first
            for name in sorted(record.metrics, key=lambda name: name != record.headline):
                if (metric := group.statistic(name)) is not None:
                    what = f"{record.kind} {name} {metric.unit}".rstrip()
                    rows.append([*values, what, metric.text, len(metric.values), metric.trials])
    return render_table([*keys, "metric", "mean ± std", "n", "trials"], rows)


def split_values(text: str) -> list[str]:
    """Split at the commas outside brackets: ``[0.2,1.0],[0.5,1.0]`` is two values.

    Raises:
        UserError: If a value is empty or the brackets do not match.
    """
    parts, expected = [""], list[str]()
    for character in text:
        if character in _BRACKETS:
            expected.append(_BRACKETS[character])
        elif character in _BRACKETS.values() and (not expected or expected.pop() != character):
            raise UserError(f"values '{text}': unmatched '{character}'")
        if character == "," and not expected:
            parts.append("")
        else:
            parts[-1] += character
    if expected:
        raise UserError(f"values '{text}': '{expected[-1]}' is missing")
    values = [part.strip() for part in parts]
    if len(values) > 1 and not all(values):
        raise UserError(f"values '{text}': found an empty value; remove the extra comma")
    return values


def _trial(run: PretrainConfig, folder: Path, evaluators: Sequence[str]) -> Trial:
    refuse_another_run(run)
    images = {"data": to_tree(run.data), "device": run.training.device}
    evaluations = []
    for kind in evaluators:
        config = load_config(EVALUATORS[kind].config, None, start=images)
        name = record_name(kind, config).removesuffix(".json")
        evaluations.append(PlannedEvaluation(name, EVALUATORS[kind], config))
    name = run.output_dir.relative_to(folder).as_posix()
    return Trial(name, run.output_dir, tuple(evaluations), run)


def _run(config_path: Path, words: Sequence[str], seed: int, folder: Path) -> PretrainConfig:
    output_dir = text_override("output_dir", str(folder / f"seed-{seed}"))
    return load_config(PretrainConfig, config_path, [*words, f"seed={seed}", output_dir])


def _choices(word: str) -> tuple[str, list[str]]:
    key, equals, text = word.partition("=")
    if not equals or not key.strip():
        raise UserError(f"'{word}' is not of the form section.key=value or section.key=v1,v2,…")
    return key.strip(), split_values(text)


def _check_keys(keys: Sequence[str], swept: Sequence[str]) -> None:
    refuse_own_keys(keys)
    for key in swept:
        if keys.count(key) > 1:
            raise UserError(f"'{key}' is swept and also given again; give it once")


def _refuse_same_runs(sweep: Sweep) -> None:
    seen: dict[str, Trial] = {}
    for trial in sweep.trials:
        assert trial.pretraining is not None
        settings = repr({**to_tree(trial.pretraining), "output_dir": None})
        if settings in seen:
            raise UserError(
                f"'{trial.folder}' and '{seen[settings].folder}' are the same run; "
                "give each value and each seed once"
            )
        seen[settings] = trial
