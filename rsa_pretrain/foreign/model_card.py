"""The card of an exported model: what it is, how it was judged, and where it ends."""

from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from rsa_pretrain.checkpoint import LoadedBackbone
from rsa_pretrain.errors import UserError
from rsa_pretrain.metadata import BackboneMetadata


class _Part(BaseModel):
    """A part of an evaluation record; the card reads these fields of it and no others."""

    model_config = ConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True)


class RecordMetric(_Part):
    """One number of a record."""

    value: float
    """What was measured."""
    unit: str
    """In what."""


class RecordModel(_Part):
    """Which weights a record is about."""

    sha256: str | None
    """Hash of the file; null for random weights."""


class RecordOfWeights(_Part):
    """One evaluation, as far as a card tells it."""

    kind: str
    """Evaluator."""
    protocol: str
    """Its settings' name."""
    deviations: list[str]
    """How the run departs from the protocol as published."""
    metrics: dict[str, RecordMetric]
    """Its numbers."""
    num_samples: int
    """Test images."""
    data_set: str
    """What it was evaluated on."""
    seeds: list[int]
    """Seeds of the evaluation."""
    hardware: str
    """Where it ran."""
    created: str
    """When."""
    model: RecordModel
    """Which weights."""


def read_records(folder: Path, loaded: LoadedBackbone) -> tuple[list[RecordOfWeights], int]:
    """Read the evaluation records that are about these weights.

    Args:
        folder: Folder of JSON records.
        loaded: The weights; records of the file they were imported from count too.

    Returns:
        The records in order of their names, and how many are about other weights.

    Raises:
        UserError: If the folder is none, or a file in it is no record.
    """
    if not folder.is_dir():
        raise UserError(f"'{folder}' is not a folder of records")
    records = []
    paths = sorted(folder.glob("*.json"))
    for path in paths:
        try:
            records.append(RecordOfWeights.model_validate_json(path.read_bytes()))
        except ValidationError as error:
            where = ".".join(str(part) for part in error.errors()[0]["loc"])
            raise UserError(f"'{path}' is not an evaluation record (see '{where}')") from None
    hashes = {loaded.sha256}
    if loaded.metadata.origin is not None and loaded.metadata.parent is not None:
        hashes.add(loaded.metadata.parent)
    about = [record for record in records if record.model.sha256 in hashes]
    return about, len(paths) - len(about)


def model_card(loaded: LoadedBackbone, records: Sequence[RecordOfWeights]) -> str:
    """Write the card as Markdown with the header the Hugging Face hub reads."""
    metadata = loaded.metadata
    title = f"{metadata.arch}, {metadata.method}"
    parts = [
        "---\nlibrary_name: transformers\npipeline_tag: image-feature-extraction\n"
        "tags:\n- self-supervised-learning\n- resnet\n---",
        f"# {title}",
        "An image backbone without classifier: it maps an image to pooled features.",
        "## Input\n\n"
        f"RGB, pixels in [0, 1], normalised by mean {list(metadata.mean)} and standard deviation "
        f"{list(metadata.std)}. {_image_size(metadata)}",
        "## Training\n\n" + "\n".join(f"- {line}" for line in _training(metadata)),
        "## Evaluation\n\n" + _evaluation(records),
        "## Limits\n\n" + "\n".join(f"- {line}" for line in _limits(loaded, records)),
    ]
    return "\n\n".join(parts) + "\n"


def _image_size(metadata: BackboneMetadata) -> str:
    if metadata.image_size is None:
        return "The training image size is not known."
    return f"Trained on images of {metadata.image_size} x {metadata.image_size} pixels."


def _training(metadata: BackboneMetadata) -> list[str]:
    known = {
        "method": metadata.method,
        "data set": metadata.data_set,
        "epochs": None if metadata.epochs is None else f"{metadata.epochs:g}",
        "optimizer steps": metadata.step,
        "seed": metadata.seed,
        "hash of the run's settings": metadata.config_hash,
    }
    lines = [f"{name}: {'not known' if value is None else value}" for name, value in known.items()]
    if metadata.origin is not None:
        origin = metadata.origin
        lines.append(
            f"imported from another project's file {origin.file} (SHA-256 {metadata.parent}), "
            f"layout {origin.layout}, network {origin.network}"
        )
    return lines


def _evaluation(records: Sequence[RecordOfWeights]) -> str:
    if not records:
        return "Not evaluated: no record of these weights was given."
    rows = ["| data set | protocol | metric | value | test images | seeds | measured |"]
    rows.append("|---|---|---|--:|--:|---|---|")
    for record in records:
        for name, metric in record.metrics.items():
            cells = [
                record.data_set,
                f"{record.kind}, {record.protocol}",
                name,
                f"{metric.value:.2f} {metric.unit}",
                str(record.num_samples),
                ", ".join(str(seed) for seed in record.seeds),
                f"{record.created}, {record.hardware}",
            ]
            rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows)


def _limits(loaded: LoadedBackbone, records: Sequence[RecordOfWeights]) -> list[str]:
    lines = [
        f"{record.kind} on {record.data_set}: {text}"
        for record in records
        for text in record.deviations
    ]
    if records:
        lines.append("Numbers are single runs unless several seeds are listed.")
    lines.append("Features say nothing of images unlike those the network was trained on.")
    lines.append(f"SHA-256 of the weights this export was made from: {loaded.sha256}.")
    return lines
