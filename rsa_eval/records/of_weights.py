"""Find the records of given weights, for the model card of an export."""

from pathlib import Path
from typing import Any

from rsa_eval.records.find import json_files
from rsa_eval.records.record import Record, read_record
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.weights.checkpoint import LoadedBackbone
from rsa_pretrain.weights.export.model_card import RecordOfWeights

_TASK = "image-classification"
_TASKS = {
    "detection": "object-detection",
    "segmentation": "image-segmentation",
    "diagnostics": "image-feature-extraction",
}
_METRICS = {"top1": "accuracy"}


def read_records(folder: Path, loaded: LoadedBackbone) -> tuple[list[RecordOfWeights], int]:
    """Read the evaluation records of these weights.

    Args:
        folder: Folder of JSON records.
        loaded: The weights; records of the file they were imported from count too.

    Returns:
        The records sorted by file name, and the number of records of other weights.

    Raises:
        UserError: If there is no such folder, or a file in it is not a record.
    """
    if not folder.is_dir():
        raise UserError(f"'{folder}' is not a folder of records")
    hashes = {loaded.sha256}
    if loaded.metadata.origin is not None and loaded.metadata.parent is not None:
        hashes.add(loaded.metadata.parent)
    found = [read_record(path) for path in json_files(folder)]
    about = [_describe(record) for record in found if record.model.sha256 in hashes]
    return about, len(found) - len(about)


def _describe(record: Record) -> RecordOfWeights:
    rows = tuple(
        (
            record.data_set,
            f"{record.kind}, {record.protocol}",
            name,
            f"{metric.text} {metric.unit}",
            str(record.num_samples),
            ", ".join(map(str, record.seeds)),
            f"{record.created}, {record.hardware}",
        )
        for name, metric in record.metrics.items()
    )
    where = f"{record.kind} on {record.data_set}"
    deviations = tuple(f"{where}: {text}" for text in record.deviations)
    return RecordOfWeights(rows, deviations, _result(record))


def _result(record: Record) -> dict[str, Any]:
    """Return a record as the hub's ``model-index`` has results."""
    return {
        "task": {"type": _TASKS.get(record.kind, _TASK), "name": record.kind},
        "dataset": {"type": record.data_set, "name": record.data_set},
        "metrics": [
            {
                "type": _METRICS.get(name, name),
                "name": f"{name} ({metric.unit}; {record.protocol})",
                "value": metric.value,
            }
            for name, metric in record.metrics.items()
        ],
    }
