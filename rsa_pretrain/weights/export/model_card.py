"""Write the card of an exported model: its training, evaluation and limits."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.text_table import escape_markdown, render_table
from rsa_pretrain.weights.checkpoint import LoadedBackbone
from rsa_pretrain.weights.metadata import BackboneMetadata

_COLUMNS = ("data set", "protocol", "metric", "value", "test images", "seeds", "measured")


@dataclass(frozen=True)
class RecordOfWeights:
    """The part of one evaluation record that the card reports."""

    rows: tuple[tuple[str, ...], ...]
    """One per metric: a cell for each column of the card's table."""
    deviations: tuple[str, ...]
    """Deviations of the run from the published protocol."""


def read_records(folder: Path, loaded: LoadedBackbone) -> tuple[list[RecordOfWeights], int]:
    """Read the evaluation records of these weights.

    Args:
        folder: Folder of JSON records.
        loaded: The weights; records of the file they were imported from count too.

    Returns:
        The records in order of their names, and how many are about other weights.

    Raises:
        UserError: If it is not a folder, or a file in it is not a record.
    """
    if not folder.is_dir():
        raise UserError(f"'{folder}' is not a folder of records")
    hashes = {loaded.sha256}
    if loaded.metadata.origin is not None and loaded.metadata.parent is not None:
        hashes.add(loaded.metadata.parent)
    found = [_read(path) for path in sorted(folder.glob("*.json"))]
    about = [record for sha256, record in found if sha256 in hashes]
    return about, len(found) - len(about)


def _read(path: Path) -> tuple[str | None, RecordOfWeights]:
    """Return the hash of the weights that a record is about, and the card's part of it."""
    try:
        tree = json.loads(path.read_bytes())
        return tree["model"]["sha256"], _describe(tree)
    except (AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise UserError(f"'{path}' is not an evaluation record (see {error})") from None


def _describe(record: dict[str, Any]) -> RecordOfWeights:
    rows = tuple(
        (
            record["data_set"],
            f"{record['kind']}, {record['protocol']}",
            name,
            f"{metric['value']:.2f} {metric['unit']}",
            str(record["num_samples"]),
            ", ".join(map(str, record["seeds"])),
            f"{record['created']}, {record['hardware']}",
        )
        for name, metric in record["metrics"].items()
    )
    where = f"{record['kind']} on {record['data_set']}"
    return RecordOfWeights(rows, tuple(f"{where}: {text}" for text in record["deviations"]))


def model_card(loaded: LoadedBackbone, records: Sequence[RecordOfWeights]) -> str:
    """Write the card as Markdown with the header the Hugging Face hub reads."""
    metadata = loaded.metadata
    title = escape_markdown(f"{metadata.arch}, {metadata.method}")
    parts = [
        "---\nlibrary_name: transformers\npipeline_tag: image-feature-extraction\n"
        "tags:\n- self-supervised-learning\n- resnet\n---",
        f"# {title}",
        "An image backbone without classifier: it maps an image to pooled features.",
        "## Input\n\n"
        f"RGB, pixels in [0, 1], normalised by mean {list(metadata.mean)} and standard deviation "
        f"{list(metadata.std)}. {_image_size(metadata)}",
        "## Training\n\n" + _listed(_training(metadata)),
        "## Evaluation\n\n" + _evaluation(records),
        "## Limits\n\n" + _listed(_limits(loaded, records)),
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
    rows = [row for record in records for row in record.rows]
    return render_table(_COLUMNS, rows, "markdown", ("value", "test images"))


def _limits(loaded: LoadedBackbone, records: Sequence[RecordOfWeights]) -> list[str]:
    lines = [text for record in records for text in record.deviations]
    if records:
        lines.append("Numbers are single runs unless several seeds are listed.")
    lines.append("Features may be poor for images unlike those the network was trained on.")
    lines.append(f"SHA-256 of the weights this export was made from: {loaded.sha256}.")
    return lines


def _listed(lines: Sequence[str]) -> str:
    return "\n".join(f"- {escape_markdown(line)}" for line in lines)
