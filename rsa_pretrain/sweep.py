"""A grid of runs: every combination of swept values, each with every seed, resumable as a whole.

Each run has a folder of its own, ``OUT/key=value,…/seed-S``, and is what the same overrides would
make of it alone.
"""

import itertools
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

from rsa_pretrain.checkpoint import BACKBONE_FILE
from rsa_pretrain.config import PretrainConfig, reads_elsewhere, refuse_another_run
from rsa_pretrain.config_files import flatten, load_config, to_tree
from rsa_pretrain.errors import UserError

_log = logging.getLogger(__name__)

_OWN_OPTIONS = {"seed": "--seeds", "output_dir": "--out"}
_BRACKETS = {"[": "]", "{": "}"}

Metrics = Mapping[str, float]
Evaluate = Callable[[Path, str], Metrics]
"""Takes a finished run's folder and an evaluator's name; returns the metrics of the record in
the folder, in percent, the headline first, and makes the record if there is none of these
weights."""


class Train(Protocol):
    """Trains one run to its end; returns 0, or 128 + the number of the signal that stopped it.

    A finished run is only held against what is asked for, settings and images.
    """

    def __call__(self, config: PretrainConfig, *, resume: bool) -> int:
        """Train, from the run folder's last checkpoint if it has one and ``resume`` is set."""


@dataclass(frozen=True)
class Cell:
    """One combination of swept values, run with every seed."""

    values: Mapping[str, Any]
    """By dotted key, as the config resolves them; empty where only seeds differ."""
    runs: tuple[PretrainConfig, ...]
    """One per seed; ``output_dir`` is the run's folder."""


@dataclass(frozen=True)
class Sweep:
    """What is to be run."""

    folder: Path
    keys: tuple[str, ...]
    """Swept keys."""
    cells: tuple[Cell, ...]

    @property
    def runs(self) -> list[PretrainConfig]:
        """Every run, in the order they are taken."""
        return [run for cell in self.cells for run in cell.runs]


@dataclass
class Outcome:
    """What came of the runs so far."""

    metrics: dict[Path, dict[str, Metrics]] = field(default_factory=dict)
    """By run folder and evaluator."""
    failures: dict[Path, str] = field(default_factory=dict)
    """Error message by run folder."""
    stopped: int | None = None
    """Exit code of the run that a signal stopped; none came after it."""


def plan_sweep(
    config_path: Path, words: Sequence[str], seeds: Sequence[int] | None, folder: Path | None
) -> Sweep:
    """Resolve every run of a sweep, so that a mistake shows before any of them starts.

    Args:
        config_path: The config that all runs share.
        words: ``key=value`` is an override of all of them, ``key=v1,v2,…`` is swept.
        seeds: Seeds of each cell; None takes the config's own.
        folder: Where the runs go; None puts ``-sweep`` behind the config's ``output_dir``.

    Raises:
        UserError: If a word or a resolved config is invalid, two cells are the same run, or a
            folder holds a run of other settings.
    """
    choices = [_choices(word) for word in words]
    _check_words(choices)
    fixed = [f"{key}={values[0]}" for key, values in choices if len(values) == 1]
    swept = [(key, values) for key, values in choices if len(values) > 1]
    first = [f"{key}={values[0]}" for key, values in swept]
    plain = load_config(PretrainConfig, config_path, [*fixed, *first])
    folder = folder or Path(f"{plain.output_dir}-sweep")
    keys = tuple(key for key, _ in swept)
    cells = []
    for values in itertools.product(*(values for _, values in swept)):
        settings = [f"{key}={value}" for key, value in zip(keys, values, strict=True)]
        # A value may hold characters that no folder name can.
        cell_folder = folder / quote(",".join(settings), safe="=,.[]{}:+ ")
        runs = tuple(
            _run(config_path, [*fixed, *settings], seed, cell_folder)
            for seed in seeds or [plain.seed]
        )
        leaves = flatten(to_tree(runs[0]))
        resolved = {key: leaves.get(key, value) for key, value in zip(keys, values, strict=True)}
        cells.append(Cell(resolved, runs))
    sweep = Sweep(folder, keys, tuple(cells))
    _refuse_same_runs(sweep)
    for run in sweep.runs:
        refuse_another_run(run)
    return sweep


def run_sweep(sweep: Sweep, evaluators: Sequence[str], train: Train, evaluate: Evaluate) -> Outcome:
    """Train and evaluate every run that is not finished; a run that breaks down stops no other.

    Args:
        sweep: The plan.
        evaluators: Names that ``evaluate`` takes.
        train: Trains one run, or goes on with it.
        evaluate: Measures one run.
    """
    outcome = Outcome()
    for number, run in enumerate(sweep.runs, start=1):
        _log.info("run %d of %d: %s", number, len(sweep.runs), run.output_dir)
        try:
            # Images in another place may be others, which training compares.
            if (run.output_dir / BACKBONE_FILE).exists() and not reads_elsewhere(run):
                _log.info("trained before")
            elif exit_code := train(run, resume=True):
                outcome.stopped = exit_code
                return outcome
            outcome.metrics[run.output_dir] = {
                name: evaluate(run.output_dir, name) for name in evaluators
            }
        except UserError as error:
            _log.warning("failed: %s", error)
            outcome.failures[run.output_dir] = str(error)
    return outcome


def split_values(text: str) -> list[str]:
    """Split at the commas outside brackets: ``[0.2,1.0],[0.5,1.0]`` holds two values.

    Raises:
        UserError: If a value is empty or the brackets do not match.
    """
    parts, expected = [""], list[str]()
    for character in text:
        if character in _BRACKETS:
            expected.append(_BRACKETS[character])
        elif character in _BRACKETS.values() and (not expected or expected.pop() != character):
            raise UserError(f"values '{text}': '{character}' closes no bracket")
        if character == "," and not expected:
            parts.append("")
        else:
            parts[-1] += character
    if expected:
        raise UserError(f"values '{text}': '{expected[-1]}' is missing")
    values = [part.strip() for part in parts]
    if len(values) > 1 and not all(values):
        raise UserError(f"values '{text}': there is nothing before, after or between two commas")
    return values


def _run(config_path: Path, words: Sequence[str], seed: int, folder: Path) -> PretrainConfig:
    # A JSON string is YAML, whatever it holds.
    output_dir = json.dumps(str(folder / f"seed-{seed}"))
    return load_config(
        PretrainConfig, config_path, [*words, f"seed={seed}", f"output_dir={output_dir}"]
    )


def _choices(word: str) -> tuple[str, list[str]]:
    key, equals, text = word.partition("=")
    if not equals or not key.strip():
        raise UserError(f"'{word}' is not of the form section.key=value or section.key=v1,v2,…")
    return key.strip(), split_values(text)


def _check_words(choices: Sequence[tuple[str, list[str]]]) -> None:
    keys = [key for key, _ in choices]
    for key, values in choices:
        if key in _OWN_OPTIONS:
            raise UserError(f"'{key}' differs from run to run of a sweep; use {_OWN_OPTIONS[key]}")
        if len(values) > 1 and keys.count(key) > 1:
            raise UserError(f"'{key}' is swept and given again; name it once")


def _refuse_same_runs(sweep: Sweep) -> None:
    seen: dict[str, PretrainConfig] = {}
    for run in sweep.runs:
        settings = repr({**to_tree(run), "output_dir": None})
        if settings in seen:
            raise UserError(
                f"'{run.output_dir}' and '{seen[settings].output_dir}' are the same run; "
                "give each value and each seed once"
            )
        seen[settings] = run
