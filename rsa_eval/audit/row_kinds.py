"""Recognise the rows that a comparison needs besides the methods: baseline and control."""

from rsa_eval.records.record import Record

_NO_LEARNING = 1e-6
_SUPERVISED = "supervised"


def is_random(record: Record) -> bool:
    """Return whether the weights are random."""
    return record.model.is_random


def is_control(record: Record) -> bool:
    """Return whether the pretraining changed no weight, only the BatchNorm statistics.

    Its learning rate is 1e-6 or less, as that of the study's ``byol-control``.
    """
    optimizer = (record.model.pretraining or {}).get("optimizer")
    rate = optimizer.get("base_lr") if isinstance(optimizer, dict) else None
    return isinstance(rate, int | float) and rate <= _NO_LEARNING


def is_self_supervised(record: Record) -> bool:
    """Return whether the weights were trained without labels."""
    metadata = record.model.metadata
    return metadata is not None and metadata.method != _SUPERVISED and not is_control(record)
