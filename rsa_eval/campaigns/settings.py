"""Settings of a suite: one data set, several evaluations."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field

from rsa_eval.config import EvaluationConfig, RandomBackboneConfig
from rsa_eval.evaluators import EVALUATORS, Evaluator
from rsa_pretrain.data.settings import DataConfig, Seed
from rsa_pretrain.plumbing.config.files import Section, flatten, load_config, to_tree
from rsa_pretrain.plumbing.config.shipped import find_config
from rsa_pretrain.plumbing.device_names import DeviceName
from rsa_pretrain.plumbing.errors import UserError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


def _names_files(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError(f"'{name}' names files; use only letters, digits, - and _")
    return name


NameOfFiles = Annotated[str, AfterValidator(_names_files)]
"""A name that the files of records and logs get."""


class EvaluationEntry(Section):
    """One evaluation of a suite."""

    evaluator: str | None = None
    """knn, linear or another command of rsa-eval; null: the evaluation's own name."""
    config: Path | None = None
    """The evaluator's settings: a YAML file, relative to the suite's folder, or the name of a
    shipped config; null: the defaults."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """Changes to the file's settings, nested or dotted (`probe.epochs: 10`)."""


class SharedSettings(Section):
    """Settings common to all evaluations of several checkpoints."""

    data: DataConfig
    """The images of all evaluations."""
    backbone: RandomBackboneConfig | None = None
    """Network of --random-init; null: those of the checkpoints."""
    seed: Seed = 0
    """Seed of all evaluations."""
    device: DeviceName = "auto"
    """auto: a GPU if there is one."""
    cache_dir: Path | None = None
    """Folder that caches features, extracted once per checkpoint, transform and set of images;
    null: OUT/features."""

    def common(self, cache_dir: Path) -> dict[str, Any]:
        """Return the settings that each evaluation takes, as plain values.

        Args:
            cache_dir: Folder that caches features, unless one is set.
        """
        return {
            "data": to_tree(self.data),
            "seed": self.seed,
            "device": self.device,
            "cache_dir": str(self.cache_dir or cache_dir),
        }


class SuiteConfig(SharedSettings):
    """Several evaluations of the same checkpoints on one data set.

    These settings override those of the evaluations' files; an evaluation's own ``settings``
    override both.
    """

    evaluations: Annotated[dict[NameOfFiles, EvaluationEntry | None], Field(min_length=1)]
    """Evaluations by name, which also names the records' files; null drops one of a base file."""


@dataclass(frozen=True)
class PlannedEvaluation:
    """An evaluator with its resolved settings."""

    name: str
    """Name in the suite."""
    evaluator: Evaluator
    config: EvaluationConfig
    """Settings; for random weights they include the network."""

    def of_random(self, backbone: RandomBackboneConfig) -> Self:
        """Return the evaluation for random weights of a network."""
        return replace(self, config=self.config.model_copy(update={"backbone": backbone}))


def load_evaluations(suite: SuiteConfig, folder: Path, cache_dir: Path) -> list[PlannedEvaluation]:
    """Resolve every evaluation of a suite, so that mistakes surface before any of them starts.

    Args:
        suite: The suite.
        folder: The suite's folder, to which the evaluations' files are relative.
        cache_dir: Folder that caches features, unless the suite names one.

    Raises:
        UserError: If an evaluator is unknown or a setting invalid; names the evaluation.
    """
    common = suite.common(cache_dir)
    evaluations = [
        _load_evaluation(name, entry, folder, common)
        for name, entry in suite.evaluations.items()
        if entry is not None
    ]
    if not evaluations:
        raise UserError("the suite has no evaluations left: all are null")
    return evaluations


def _load_evaluation(
    name: str, entry: EvaluationEntry, folder: Path, common: Mapping[str, Any]
) -> PlannedEvaluation:
    kind = entry.evaluator or name
    if kind not in EVALUATORS:
        raise UserError(
            f"evaluations.{name}: unknown evaluator '{kind}'; set evaluations.{name}.evaluator to "
            f"one of {', '.join(EVALUATORS)}"
        )
    settings = {**common, **flatten(entry.settings)}
    # JSON is valid YAML, whatever the value.
    overrides = [f"{key}={json.dumps(value)}" for key, value in settings.items()]
    try:
        path = None if entry.config is None else find_config(entry.config, folder)
        config = load_config(EVALUATORS[kind].config, path, overrides)
    except UserError as error:
        raise UserError(f"evaluations.{name}: {error}") from None
    if config.backbone is not None:
        raise UserError(
            f"evaluations.{name}: 'backbone' is a setting of the suite itself; remove it here"
        )
    return PlannedEvaluation(name, EVALUATORS[kind], config)
