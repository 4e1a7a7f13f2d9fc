"""Write and read records: one JSON file per evaluation."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from rsa_eval.records.pretraining_run import pretraining_settings
from rsa_pretrain.components.settings import BackboneConfig
from rsa_pretrain.plumbing.atomic_files import write_bytes, write_text
from rsa_pretrain.plumbing.config.files import Section, parse_tree
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.json_text import parse_shown_json
from rsa_pretrain.plumbing.text_files import read_text
from rsa_pretrain.plumbing.user_paths import as_text
from rsa_pretrain.weights.metadata import BackboneMetadata

if TYPE_CHECKING:
    from rsa_eval.records.predictions import Predictions
    from rsa_eval.statistics.intervals import Interval
    from rsa_pretrain.weights.checkpoint import LoadedBackbone

SCHEMA_VERSION = 4
_FIRST_WITH_INTERVALS = 3

WILSON, BOOTSTRAP = "Wilson", "bootstrap over images"
"""Methods of intervals: the first of one proportion, the second of everything else."""

Kind = Annotated[
    Literal[
        "knn",
        "linear",
        "logistic",
        "low-shot",
        "finetune",
        "svm",
        "robustness",
        "segmentation",
        "diagnostics",
        "detection",
    ],
    BeforeValidator(lambda name: "low-shot" if name == "low_shot" else name),  # the old spelling
]


Finite = Annotated[float, Field(allow_inf_nan=False)]


class MetricInterval(Section):
    """A 95 % confidence interval over test images: for other images, not for other seeds."""

    low: Finite
    high: Finite
    method: str
    """``WILSON`` or ``BOOTSTRAP``."""

    @property
    def text(self) -> str:
        """The bounds."""
        return f"[{self.low:.1f}, {self.high:.1f}]"


class Metric(Section):
    """One measured number."""

    value: Finite
    unit: str
    """``%`` for accuracies and average precisions."""
    interval: MetricInterval | None = None
    """In the same unit; null where the number does not come from labelled test images."""

    @property
    def text(self) -> str:
        """The value with its unit's digits, and its interval if it has one."""
        if self.interval is None:
            return f"{self.value:.2f}"
        return f"{self.value:.1f} {self.interval.text}"


class PredictionsFile(Section):
    """The file of an evaluation's answers to each test image."""

    file: Annotated[str, Field(pattern=r"^[^/\\\x00-\x1f.][^/\\\x00-\x1f]*$")]
    """Name of the file beside the record."""
    sha256: str


WARNINGS = "warnings"
"""Key of an evaluation's details: sentences that make its numbers doubtful."""


@dataclass(frozen=True, kw_only=True)
class Scores:
    """An evaluator's scores of features; its fields are those of a record."""

    metrics: dict[str, Metric]
    headline: str
    """The metric a table shows."""
    num_samples: int
    """Test images counted."""
    details: dict[str, Any]
    """Curves, choices and per-setting results, by evaluator."""
    predictions: "Predictions | None" = None
    """The answer to each test image; None without labelled ones."""

    @property
    def value(self) -> float:
        """The headline's value."""
        return self.metrics[self.headline].value

    def interval(self, metric: str | None = None) -> "Interval | None":
        """Return the 95 % interval over images of a metric, by default the headline.

        Returns:
            In the metric's unit; None if it is no mean over labelled test images.
        """
        if self.predictions is None:
            return None
        found = self.predictions.interval(metric or self.headline)
        return None if found is None else found[0]

    def warned(self, texts: Sequence[str]) -> Self:
        """Add sentences that make the numbers doubtful, each once."""
        found = list(dict.fromkeys([*self.details.get(WARNINGS, ()), *texts]))
        return replace(self, details=self.details | {WARNINGS: found}) if found else self

    def result(
        self, details: dict[str, Any], deviations: list[str], test_keys: Sequence[str]
    ) -> "Result":
        """Add what is known of the images, and the departures from the protocol."""
        return Result(
            metrics=self.metrics,
            headline=self.headline,
            num_samples=self.num_samples,
            details=self.details | details,
            predictions=self.predictions,
            deviations=deviations,
            test_keys=test_keys,
        )


@dataclass(frozen=True, kw_only=True)
class Result(Scores):
    """An evaluator's result on images."""

    deviations: list[str]
    artifacts: dict[str, str] = field(default_factory=dict)
    test_keys: Sequence[str] = ()
    """A unique name of each test image, the same wherever they are stored."""


GIVEN_FEATURES = "given features"
"""``Model.other_network`` of features that were extracted elsewhere."""


class Model(Section):
    """The evaluated model: a checkpoint, random weights, or features made elsewhere."""

    checkpoint: str | None
    """Path or network as given on the command line; null for random weights."""
    sha256: str | None
    """Hash of the checkpoint file, or of another network's tensors (and code) where there is no
    file; null for random weights of the toolkit's networks."""
    metadata: BackboneMetadata | None
    """The checkpoint's own description; null for random weights and other networks."""
    backbone: BackboneConfig | None
    """Architecture and stem of the toolkit's networks; null for others."""
    other_network: str | None = None
    """Name of a network that is none of the toolkit's, such as timm:vit_tiny_patch16_224."""
    pretraining: dict[str, Any] | None = None
    """Every setting of the run that trained the weights; null for random weights, for those of
    another project and for a checkpoint outside a run folder."""

    @property
    def is_random(self) -> bool:
        """Return whether the weights are random."""
        return self.checkpoint is None

    @property
    def network(self) -> str:
        """Name the network, with the stem of the toolkit's."""
        if self.backbone is None:
            return self.other_network or "unknown network"
        return f"{self.backbone.name}, {self.backbone.stem} stem"

    @model_validator(mode="after")
    def _check_network(self) -> Self:
        if (self.backbone is None) == (self.other_network is None):
            raise ValueError("a model has either a backbone or another network")
        return self


_SINGLE_CLASSIFIERS = frozenset({"knn", "linear", "logistic", "finetune"})


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
    predictions: PredictionsFile | None = None
    """The answer to each test image; null without labelled ones, and in older records."""
    created: str
    """UTC, ISO 8601."""

    @property
    def warnings(self) -> list[str]:
        """The evaluator's doubts about its numbers; empty if it has none."""
        found = self.details.get(WARNINGS, [])
        return [str(text) for text in found] if isinstance(found, list) else []

    @model_validator(mode="after")
    def _check_headline(self) -> Self:
        if self.headline not in self.metrics:
            raise ValueError(f"headline '{self.headline}' is not among metrics {[*self.metrics]}")
        return self


def describe_checkpoint(loaded: "LoadedBackbone") -> Model:
    """Describe a loaded checkpoint for a record."""
    return Model(
        checkpoint=str(loaded.path),
        sha256=loaded.sha256,
        metadata=loaded.metadata,
        backbone=loaded.metadata.network,
        pretraining=pretraining_settings(loaded.path, loaded.metadata),
    )


def describe_random_init(backbone: BackboneConfig) -> Model:
    """Describe a randomly initialised backbone for a record."""
    return Model(checkpoint=None, sha256=None, metadata=None, backbone=backbone)


def describe_given_features(path: Path, sha256: str) -> Model:
    """Describe features that were extracted elsewhere for a record.

    Args:
        path: File of the training features.
        sha256: Hash of the content of all their files.
    """
    return Model(
        checkpoint=as_text(path),
        sha256=sha256,
        metadata=None,
        backbone=None,
        other_network=GIVEN_FEATURES,
    )


def write_record(record: Record, path: Path, predictions: bytes | None = None) -> None:
    """Write a record as one JSON file, atomically, after the file of its predictions.

    Args:
        record: The record.
        path: Its file.
        predictions: Content of the file that ``record.predictions`` names.
    """
    if predictions is not None:
        assert record.predictions is not None
        write_bytes(path.with_name(record.predictions.file), predictions)
    write_text(path, record.model_dump_json(indent=2) + "\n")


def read_record(path: Path) -> Record:
    """Read a record of this or an earlier schema version.

    Raises:
        UserError: If the file is unreadable, not JSON, or not a record of this schema.
    """
    text = read_text(path, what="record")
    try:
        tree = parse_shown_json(text)
    except ValueError:
        raise UserError(f"record '{path}' is not JSON") from None
    if not isinstance(tree, dict) or "schema_version" not in tree:
        raise UserError(f"'{path}' is not an evaluation record: it has no 'schema_version'")
    found = tree["schema_version"]
    if type(found) is not int or not 1 <= found <= SCHEMA_VERSION:
        is_newer = type(found) is int and found > SCHEMA_VERSION
        raise UserError(
            f"record '{path}' has schema version {found!r}, expected 1 to {SCHEMA_VERSION}"
            f"{'; update rsa-toolkit to read it' if is_newer else ''}"
        )
    if found == 1:  # before artifacts and model.pretraining
        tree |= {"artifacts": {}}
    record = parse_tree(Record, tree | {"schema_version": SCHEMA_VERSION}, f"record '{path}'")
    return with_wilson_intervals(record) if found < _FIRST_WITH_INTERVALS else record


def with_wilson_intervals(record: Record) -> Record:
    """Add the intervals of accuracies to a record made before records had them.

    Only those of a single classifier, whose number of right images follows from the accuracy.
    """
    if record.kind not in _SINGLE_CLASSIFIERS or "top1_std" in record.metrics:
        return record
    from rsa_eval.statistics.intervals import wilson

    metrics = dict(record.metrics)
    for name in metrics.keys() & {"top1", "top5"}:
        value, unit = record.metrics[name].value, record.metrics[name].unit
        num_right = value * record.num_samples / 100
        is_count = math.isclose(num_right, round(num_right), abs_tol=1e-6)
        if unit == "%" and record.num_samples > 0 and 0 <= value <= 100 and is_count:
            found = wilson(round(num_right), record.num_samples)
            interval = MetricInterval(low=found.low, high=found.high, method=WILSON)
            metrics[name] = metrics[name].model_copy(update={"interval": interval})
    return record.model_copy(update={"metrics": metrics})
