"""Trials: weights, pretrained first if needed, and the evaluations recorded for them.

A trial's folder contains ``records/EVALUATION.json``; with pretraining it is also a run folder.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from rsa_eval.campaigns.settings import PlannedEvaluation
from rsa_eval.features.networks.spec import Checkpoint, NetworkSpec
from rsa_pretrain.config import PretrainConfig
from rsa_pretrain.plumbing.device_names import DeviceName
from rsa_pretrain.plumbing.errors import UserError

DETECTION = "detection"
"""Name of a detector's record."""

_OWN_OPTIONS = {"seed": "--seeds", "output_dir": "--out"}


@dataclass(frozen=True)
class Trial:
    """A backbone and its evaluations; without pretraining or checkpoint, random weights."""

    name: str
    """Unique among the trials of a command."""
    folder: Path
    evaluations: tuple[PlannedEvaluation, ...]
    """At least one; for random weights their settings include the network."""
    pretraining: PretrainConfig | None = None
    """The run that trains the weights; its ``output_dir`` is the trial's folder."""
    checkpoint: Checkpoint | None = None
    """Existing weights, anything ``load_subject`` takes; also another library's network with random
    weights."""
    file: Path | None = None
    """File of the existing weights of a ResNet: a training in their folder writes others."""
    sha256: str | None = None
    """Hash of the existing weights; None for random ones."""
    other_network: str | None = None
    """Name of a network that is none of the toolkit's."""
    departures: tuple[str, ...] = ()
    """Departures of the run from its recipe, noted in each record."""

    @property
    def weights(self) -> Checkpoint | None:
        """The weights to evaluate; None for random weights of a ResNet."""
        if self.pretraining is not None:
            return self.folder
        return self.checkpoint if self.file is None else self.file

    @property
    def label(self) -> str:
        """Its name in tables: the checkpoint as given, or the name of random weights."""
        found = self.checkpoint
        is_random = found is None or (isinstance(found, NetworkSpec) and found.is_random)
        return self.name if is_random else str(found)

    @property
    def device(self) -> DeviceName:
        """The device setting of its evaluations."""
        return self.evaluations[0].config.device

    @property
    def record_names(self) -> list[str]:
        """Names of its records."""
        return [evaluation.name for evaluation in self.evaluations]


@dataclass(frozen=True)
class DetectorTrial:
    """A detector fine-tuned from a backbone and evaluated."""

    name: str
    """Unique among the trials of a command."""
    folder: Path
    config: Path
    """File of its recipe."""
    seed: int
    start: Path | None
    """Run folder of the backbone; None starts from random weights."""
    overrides: tuple[str, ...]
    """``key=value`` words for the recipe."""

    @property
    def device(self) -> DeviceName:
        """The device set by the overrides; otherwise auto."""
        devices: tuple[DeviceName, ...] = ("cpu", "cuda")
        chosen = [device for device in devices if f"training.device={device}" in self.overrides]
        return chosen[0] if chosen else "auto"

    @property
    def record_names(self) -> list[str]:
        """Names of its records."""
        return [DETECTION]


AnyTrial = Trial | DetectorTrial


def record_path(trial: AnyTrial, name: str) -> Path:
    """Return the path of one of a trial's records."""
    return trial.folder / "records" / f"{name}.json"


def refuse_own_keys(keys: Iterable[str]) -> None:
    """Refuse settings that differ from trial to trial.

    Raises:
        UserError: If there are any; names the option to use instead.
    """
    for key in keys:
        if key in _OWN_OPTIONS:
            raise UserError(f"'{key}' differs from trial to trial; use {_OWN_OPTIONS[key]}")
