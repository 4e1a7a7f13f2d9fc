from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rsa_eval.records.class_predictions import ClassPredictions
from rsa_eval.records.predictions import file_of
from rsa_eval.records.record import Record, write_record

WriteTrial = Callable[..., Path]


@pytest.fixture
def write_trial(tmp_path: Path, make_result: Callable[..., Record]) -> WriteTrial:
    """A function that writes a record with the answers of one network, and returns its path."""

    def write(
        name: str,
        right: Sequence[int] | None,
        *,
        seed: int = 0,
        keys: Sequence[str] | None = None,
        labels: Sequence[int] | None = None,
        **changes: Any,
    ) -> Path:
        path = tmp_path / name / "records" / f"{changes.get('kind', 'knn')}.json"
        record = make_result(**{"kind": "knn", "protocol": "weighted_vote"} | changes)
        assert record.model.metadata is not None
        metadata = record.model.metadata.model_copy(update={"seed": seed})
        model = record.model.model_copy(
            update={"metadata": metadata, "sha256": f"{name}", "pretraining": {"a": name[0]}}
        )
        update: dict[str, Any] = {"model": model}
        content = None
        if right is not None:
            ranks = np.where(np.array(right) > 0, 0, 9)[None]
            truth = np.zeros(len(right), int) if labels is None else np.array(labels)
            kept = ClassPredictions(truth, ranks, ranks, ("",), 10)
            names = keys or [f"{number}.jpg" for number in range(len(right))]
            entry, content = file_of(names, kept, path)
            value = record.metrics["top1"].model_copy(update={"value": 100 * float(np.mean(right))})
            update |= {"predictions": entry, "metrics": {"top1": value}}
        write_record(record.model_copy(update=update), path, content)
        return path

    return write
