"""Write and read records: one JSON file per evaluation."""

import json
import platform
import subprocess
import sys
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import UTC, datetime
from glob import escape
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from rsa_eval.records.pretraining_run import pretraining_settings
from rsa_pretrain.components.settings import BackboneConfig
from rsa_pretrain.plumbing.atomic_files import write_text
from rsa_pretrain.plumbing.config.files import Section, parse_tree, to_tree
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.versions import installed_versions
from rsa_pretrain.weights.metadata import BackboneMetadata, library_versions

if TYPE_CHECKING:
    from rsa_pretrain.weights.checkpoint import LoadedBackbone

SCHEMA_VERSION = 2

Kind = Annotated[
    Literal[
        "knn",
        "linear",
        "logistic",
        "low-shot",
        "finetune",
        "svm",
        "diagnostics",
        "detection",
    ],
    BeforeValidator(lambda name: "low-shot" if name == "low_shot" else name),  # the old spelling
]


class Metric(Section):
    """One measured number."""

    value: Annotated[float, Field(allow_inf_nan=False)]
    unit: str
    """``%`` for accuracies and average precisions."""


@dataclass(frozen=True)
class Scores:
    """An evaluator's scores of features; its fields are those of a record."""

    metrics: dict[str, Metric]
    headline: str
    """The metric a table shows."""
    num_samples: int
    """Test images counted."""
    details: dict[str, Any]
    """Curves, choices and per-setting results, by evaluator."""

    @property
    def value(self) -> float:
        """The headline's value."""
        return self.metrics[self.headline].value

    def result(self, details: dict[str, Any], deviations: list[str]) -> "Result":
        """Add what is known of the images, and the departures from the protocol."""
        return Result(
            metrics=self.metrics,
            headline=self.headline,
            num_samples=self.num_samples,
            details=self.details | details,
            deviations=deviations,
        )


@dataclass(frozen=True)
class Result(Scores):
    """An evaluator's result on images; its fields are those of the record."""

    deviations: list[str]
    artifacts: dict[str, str] = field(default_factory=dict)


class Model(Section):
    """The evaluated model: a checkpoint or random weights."""

    checkpoint: str | None
    """Path as given on the command line; null for random weights."""
    sha256: str | None
    """Hash of the checkpoint file; null for random weights."""
    metadata: BackboneMetadata | None
    """The checkpoint's own description; null for random weights."""
    backbone: BackboneConfig
    """Architecture and stem."""
    pretraining: dict[str, Any] | None = None
    """Every setting of the run that trained the weights; null for random weights, for those of
    another project and for a checkpoint outside a run folder."""


class Record(Section):
    """The record of one evaluation: enough to interpret the numbers and to reproduce them."""

    schema_version: int
    kind: Kind
    """The evaluator."""
    protocol: str
    """Name of the protocol's config."""
    deviations: list[str]
    """The run's departures from the published protocol; empty if there are none."""
    metrics: dict[str, Metric]
    """Metrics of the final epoch."""
    headline: str
    """The metric shown in tables."""
    num_samples: int
    """Number of test images."""
    data_set: str
    model: Model
    config: dict[str, Any]
    """Every setting, resolved."""
    seeds: list[int]
    details: dict[str, Any]
    """Curves and per-setting results, by evaluator."""
    artifacts: dict[str, str]
    """Plots and tables that belong to the record: title → path relative to the record's folder."""
    command: list[str]
    git_commit: str | None
    git_dirty: bool | None
    library_versions: dict[str, str]
    hardware: str
    seconds: float
    """Wall time of the evaluation; after a resumption, since its last start."""
    created: str
    """UTC, ISO 8601."""

    @model_validator(mode="after")
    def _check_headline(self) -> Self:
        if self.headline not in self.metrics:
            raise ValueError(f"headline '{self.headline}' is not among metrics {[*self.metrics]}")
        return self


def describe_checkpoint(loaded: "LoadedBackbone") -> Model:
    """Describe a loaded checkpoint for a record."""
    backbone = BackboneConfig(arch=loaded.metadata.arch, stem=loaded.metadata.stem)
    return Model(
        checkpoint=str(loaded.path),
        sha256=loaded.sha256,
        metadata=loaded.metadata,
        backbone=backbone,
        pretraining=pretraining_settings(loaded.path, loaded.metadata),
    )


def describe_random_init(backbone: BackboneConfig) -> Model:
    """Describe a randomly initialised backbone for a record."""
    return Model(checkpoint=None, sha256=None, metadata=None, backbone=backbone)


def make_record(
    result: Result,
    *,
    kind: Kind,
    protocol: str,
    data_set: str,
    model: Model,
    config: Section,
    seed: int,
    hardware: str,
    seconds: float,
) -> Record:
    """Complete a result with its model and settings, and with code, library and machine details."""
    commit, dirty = _git_state()
    return Record(
        schema_version=SCHEMA_VERSION,
        kind=kind,
        protocol=protocol,
        **vars(result),
        data_set=data_set,
        model=model,
        config=to_tree(config),
        seeds=[seed],
        command=[*_program(), *sys.argv[1:]],
        git_commit=commit,
        git_dirty=dirty,
        library_versions=library_versions()
        | {"python": platform.python_version()}
        | installed_versions("pycocotools", "faster-coco-eval"),
        hardware=hardware,
        seconds=seconds,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def write_record(record: Record, path: Path) -> None:
    """Write a record as one JSON file, atomically."""
    write_text(path, record.model_dump_json(indent=2) + "\n")


def read_record(path: Path) -> Record:
    """Read a record of this or an earlier schema version.

    Raises:
        UserError: If the file is unreadable, not JSON, or not a record of this schema.
    """
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read record '{path}': {error.strerror}") from None
    except (ValueError, RecursionError):
        raise UserError(f"record '{path}' is not JSON") from None
    if not isinstance(tree, dict) or "schema_version" not in tree:
        raise UserError(f"'{path}' is not an evaluation record: it has no 'schema_version'")
    found = tree["schema_version"]
    if found == 1:  # before artifacts and model.pretraining
        tree |= {"schema_version": 2, "artifacts": {}}
    elif found != SCHEMA_VERSION:
        is_newer = isinstance(found, int) and found > SCHEMA_VERSION
        raise UserError(
            f"record '{path}' has schema version {found!r}, expected 1 or {SCHEMA_VERSION}"
            f"{'; update rsa-toolkit to read it' if is_newer else ''}"
        )
    return parse_tree(Record, tree, f"record '{path}'")


def _program() -> list[str]:
    """Return the command that started this process, without the program's folder."""
    path = Path(sys.argv[0])
    return ["python", "-m", path.parent.name] if path.name == "__main__.py" else [path.name]


def _git_state() -> tuple[str | None, bool | None]:
    """Return the commit of the checkout this code runs from, and whether it has changes."""
    folder = Path(__file__).parent

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", "-C", str(folder), *words], check=True, capture_output=True, text=True
        ).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", Path(__file__).name)
        return git("rev-parse", "HEAD"), bool(git("status", "--porcelain"))
    except (OSError, subprocess.CalledProcessError):
        return None, None


@dataclass(frozen=True)
class Workspace:
    """Paths of the files an evaluation may write beside its record."""

    record: Path
    """The record to write."""

    @property
    def state(self) -> Path:
        """State from which a stopped evaluation resumes; removed when the record is written."""
        return self.record.with_suffix(".state.pt")

    def fold_state(self, fold: int) -> Path:
        """Return the state file of one of an evaluation's several training runs."""
        return self.state.with_name(f"{self.state.stem}.fold-{fold}.pt")

    def remove_states(self) -> None:
        """Delete the states from which a stopped evaluation would resume."""
        folds = f"{escape(self.state.stem)}.fold-*.pt"
        for path in (self.state, *self.state.parent.glob(folds)):
            path.unlink(missing_ok=True)

    @property
    def artifacts(self) -> Path:
        """Folder of plots and tables that belong to the record."""
        return self.record.with_suffix(".artifacts")

    def check_artifacts(self, names: Collection[str]) -> None:
        """Refuse, before any work is done, to replace files the evaluation did not write.

        Args:
            names: Files the evaluation writes to the folder.

        Raises:
            UserError: If the folder's path is a file, or the folder contains any other file.
        """
        folder = self.artifacts
        if not folder.exists():
            return
        if not folder.is_dir():
            raise UserError(f"'{folder}' is a file; the plots need a folder there")
        foreign = sorted({path.name for path in folder.iterdir()} - set(names))
        if foreign:
            raise UserError(
                f"the plots would replace the folder '{folder}', which also contains "
                f"'{foreign[0]}'; move that, or give another --out"
            )
