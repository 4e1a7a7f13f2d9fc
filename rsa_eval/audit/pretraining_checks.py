"""Compare how the weights were trained: a difference between methods should be the method."""

from collections.abc import Sequence
from typing import Any

from rsa_eval.audit.entries import (
    NamedRecord,
    describe_sides,
    differing_keys,
    list_names,
    show,
    sides_of,
)
from rsa_eval.audit.finding import Finding, Side
from rsa_eval.audit.row_kinds import is_control
from rsa_eval.records.identity import shared_training

# The first matching prefix of a setting names its topic; a method's settings are the method.
_TOPICS = (
    ("method.", None),
    ("monitor.", None),
    ("training.epochs", "pretraining epochs"),
    ("training.global_batch_size", "pretraining batch size"),
    ("training.precision", "pretraining precision"),
    ("views.implementation", "pretraining precision"),
    ("data.num_test_images", None),
    ("data.test", None),
    ("data.eval_", None),
    ("data.", "pretraining images"),
    ("views.", "augmentation"),
    ("backbone.arch", None),
    ("backbone.stem", None),
    ("backbone.width", None),
    ("optimizer.", "optimizer"),
    ("", "pretraining settings"),
)
_REMEDY = (
    "train all with the same value, or say beside the numbers that the rows differ in more than "
    "the method"
)


def check_pretraining(entries: Sequence[NamedRecord]) -> list[Finding]:
    """List in what else than the method the pretrainings differ; controls are left out."""
    architecture = _one_difference(
        "architecture",
        entries,
        lambda entry: entry.record.model.network,
    )
    found = [architecture]
    trained = [
        entry for entry in entries if entry.record.model.metadata and not is_control(entry.record)
    ]
    known = [entry for entry in trained if entry.record.model.pretraining is not None]
    found += _settings(known, entries)
    unknown = [entry for entry in trained if entry.record.model.pretraining is None]
    found += [
        _one_difference(topic, unknown, lambda entry, field=field: _fact(entry, field))
        for topic, field in (
            *(("pretraining epochs", "epochs"), ("pretraining images", "data_set")),
            ("pretraining image size", "image_size"),
        )
    ]
    if unknown and len(entries) > 1:
        found.append(
            Finding(
                "note",
                "pretraining settings",
                f"the pretraining settings of {list_names(unknown, entries)} are not recorded",
                "compare them by hand with the other rows' settings",
            )
        )
    found.append(_labels(trained, entries))
    return [finding for finding in found if finding is not None]


def _settings(known: Sequence[NamedRecord], entries: Sequence[NamedRecord]) -> list[Finding | None]:
    settings = {entry.name: _training_of(entry) for entry in known}
    by_topic: dict[str, list[str]] = {}
    for key in differing_keys(list(settings.values())):
        topic = next(topic for prefix, topic in _TOPICS if key.startswith(prefix))
        if topic is not None:
            by_topic.setdefault(topic, []).append(key)
    found: list[Finding | None] = []
    for topic, keys in by_topic.items():
        parts, sides = [], []
        for key in keys:
            own = sides_of(known, lambda entry, key=key: show(settings[entry.name].get(key)))  # type: ignore[misc]
            parts.append(f"{key} is {describe_sides(own, entries)}")
            sides += [Side(f"{key}: {side.value}", side.records) for side in own]
        found.append(Finding("caution", topic, ". ".join(parts), _REMEDY, tuple(sides)))
    return found


def _training_of(entry: NamedRecord) -> dict[str, Any]:
    """Return a run's settings, with the epochs that these weights were trained for."""
    pretraining, metadata = entry.record.model.pretraining, entry.record.model.metadata
    assert pretraining is not None
    assert metadata is not None
    trained = {} if metadata.epochs is None else {"training.epochs": metadata.epochs}
    return shared_training(pretraining) | trained


def _fact(entry: NamedRecord, field: str) -> str | None:
    value = getattr(entry.record.model.metadata, field)
    return None if value is None else show(value)


def _one_difference(topic: str, entries: Sequence[NamedRecord], value: Any) -> Finding | None:
    sides = sides_of(entries, value)
    if len(sides) < 2:
        return None
    statement = f"{topic} differs: {describe_sides(sides, entries)}"
    return Finding("caution", topic, statement, _REMEDY, sides)


def _labels(trained: Sequence[NamedRecord], entries: Sequence[NamedRecord]) -> Finding | None:
    """Note rows trained with labels among rows trained without."""
    having = [entry for entry in trained if _method(entry) == "supervised"]
    if not having or len(having) == len(trained):
        return None
    return Finding(
        "note",
        "labels",
        f"{list_names(having, entries)} learned from labels, the other weights did not",
        "show it as a reference, not as a rival",
    )


def _method(entry: NamedRecord) -> str | None:
    metadata = entry.record.model.metadata
    return None if metadata is None else metadata.method
