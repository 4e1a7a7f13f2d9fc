"""Compare the evaluations themselves: their images, transforms, protocols and budgets."""

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
from rsa_eval.audit.finding import Finding, Severity
from rsa_eval.config import result_settings
from rsa_eval.evaluators import EVALUATORS
from rsa_eval.records.record import Record
from rsa_pretrain.data.sets import data_set
from rsa_pretrain.plumbing.config.files import parse_tree, to_tree
from rsa_pretrain.plumbing.errors import UserError

_TRANSFORM = (
    *("data.image_size", "data.eval_resize", "data.eval_interpolation"),
    "data.exif_orientation",
)
_BUDGET = (
    *("probe.base_lr", "search.num_values", "search.min_exponent", "search.max_exponent"),
    *("search.held_out_percent", "probe.held_out_share", "machine.costs", "machine.folds"),
)
_EPOCHS = ("probe.epochs", "tuning.epochs")
_VOTES = "settings"
# Compared elsewhere (images and statistics by what was read, weights, seeds), or of no effect.
_OTHERWISE = frozenset({"protocol", "seed", "batch_size", "output_dir", "memory_budget_mib"})
_OTHER_SECTIONS = ("data.", "backbone.", "views.implementation")

_REPEAT = "repeat one side's evaluation with the other's setting"


def result_settings_of(entries: Sequence[NamedRecord]) -> list[dict[str, Any]]:
    """Return each record's settings that affect its result, by dotted key.

    A setting newer than a record takes the default, which describes the record's behaviour. If the
    settings of any record are those of an incompatible version, all stay as recorded.
    """
    recorded = [result_settings(entry.record.config) for entry in entries]
    complete = [_with_defaults(entry.record) for entry in entries]
    if None in complete:
        return recorded
    return [(full or {}) | own for full, own in zip(complete, recorded, strict=True)]


def _with_defaults(record: Record) -> dict[str, Any] | None:
    evaluator = EVALUATORS.get(record.kind)
    if evaluator is None:
        return None
    try:
        return result_settings(to_tree(parse_tree(evaluator.config, record.config, None)))
    except UserError:
        return None


def check_evaluations(entries: Sequence[NamedRecord]) -> list[Finding]:
    """List the differences between evaluations of one kind on one data set."""
    settings = result_settings_of(entries)
    by_name = {entry.name: own for entry, own in zip(entries, settings, strict=True)}
    found = [_protocols(entries), _normalisation(entries)]
    for key in differing_keys(settings):
        topic, severity, remedy = _rule(key)
        if topic is not None:
            sides = sides_of(entries, lambda entry, key=key: _value(key, by_name[entry.name]))  # type: ignore[misc]
            found.append(_differs(severity, topic, key, sides, entries, remedy))
    found += [*_deviations(entries), *_warnings(entries)]
    return [finding for finding in found if finding is not None]


def _rule(key: str) -> tuple[str | None, Severity, str]:
    """Return topic, severity and remedy of a differing setting; no topic to ignore it."""
    if key in _TRANSFORM:
        return "transform", "unfair", f"{_REPEAT}; the networks saw different crops"
    if key == "layers":
        return "layers", "unfair", f"{_REPEAT}; the classifiers saw different features"
    if key in _BUDGET:
        return (
            "hyper-parameter budget",
            "unfair",
            "give every method the same search, chosen on held-out training images",
        )
    if key in _EPOCHS:
        return "head epochs", "unfair", f"{_REPEAT}; a head trained longer is not a better backbone"
    if key == _VOTES:
        return "votes", "note", "compare the same vote; the first is the headline"
    if key == "precision":
        return "precision", "caution", _REPEAT
    if key == "feature_dtype":
        return "feature type", "note", _REPEAT
    if key in _OTHERWISE or key.startswith(_OTHER_SECTIONS) or key.endswith(".root"):
        return None, "note", ""
    return "protocol settings", "unfair", _REPEAT


def _value(key: str, settings: dict[str, Any]) -> str | None:
    """Describe a setting of one record; a list of values to try by its length."""
    value = settings.get(key)
    if key == _VOTES and isinstance(value, list):
        return f"{len(value)} votes, the first {show(value[0] if value else None)}"
    if key in ("probe.base_lr", "machine.costs") and isinstance(value, list):
        tried = f"{len(value)} value{'s' * (len(value) != 1)} tried: {show(value)}"
        chosen = " (chosen on held-out training images)" if len(value) > 1 else ""
        return tried + chosen
    return show(value)


def _differs(
    severity: Severity,
    topic: str,
    key: str,
    sides: Sequence[Any],
    entries: Sequence[NamedRecord],
    remedy: str,
) -> Finding:
    statement = f"{key} differs: {describe_sides(sides, entries)}"
    return Finding(severity, topic, statement, remedy, tuple(sides))


def _protocols(entries: Sequence[NamedRecord]) -> Finding | None:
    sides = sides_of(entries, lambda entry: entry.record.protocol)
    if len(sides) < 2:
        return None
    return _differs("unfair", "protocol", "protocol", sides, entries, "use one protocol")


def _normalisation(entries: Sequence[NamedRecord]) -> Finding | None:
    """Compare the pixel statistics that each network received."""

    def value(entry: NamedRecord) -> str | None:
        statistics = normalisation_of(entry.record)
        return (
            None if statistics is None else f"mean {show(statistics[0])} std {show(statistics[1])}"
        )

    sides = sides_of(entries, value)
    if len(sides) < 2:
        return None
    return Finding(
        "caution",
        "normalisation",
        f"pixels were normalised differently: {describe_sides(sides, entries)}",
        "check that each network received the statistics it was trained with",
        sides,
    )


def normalisation_of(record: Record) -> tuple[Any, Any] | None:
    """Return mean and standard deviation of the input: the weights', else the data set's."""
    metadata = record.model.metadata
    if metadata is not None:
        return list(metadata.mean), list(metadata.std)
    data = record.config.get("data")
    if not isinstance(data, dict):
        return None
    if isinstance(data.get("mean"), list) and isinstance(data.get("std"), list):
        return list(data["mean"]), list(data["std"])
    try:
        mean, std = data_set(str(data.get("name"))).normalisation
    except ValueError:
        return None
    return list(mean), list(std)


def _deviations(entries: Sequence[NamedRecord]) -> list[Finding]:
    """List departures from the protocol that some records have and others lack."""
    every = {text: None for entry in entries for text in entry.record.deviations}
    found = []
    for text in every:
        having = [entry for entry in entries if text in entry.record.deviations]
        lacking = [entry for entry in entries if text not in entry.record.deviations]
        if lacking:
            found.append(
                Finding(
                    "caution",
                    "deviation",
                    f"'{text}' departs from the protocol in {list_names(having, entries)}, "
                    f"not in {list_names(lacking, entries)}",
                    "state it beside the numbers, or evaluate all alike",
                    sides_of(entries, lambda entry, text=text: _has(entry, text)),  # type: ignore[misc]
                )
            )
    return found


def _warnings(entries: Sequence[NamedRecord]) -> list[Finding]:
    """List the doubts that evaluators noted in records."""
    found = []
    for text in {text: None for entry in entries for text in entry.record.warnings}:
        having = [entry for entry in entries if text in entry.record.warnings]
        statement = f"{list_names(having, entries)}: {text}"
        remedy = "compare by an evaluation without this doubt, such as kNN or logistic regression"
        found.append(Finding("caution", "warning", statement, remedy))
    return found


def _has(entry: NamedRecord, deviation: str) -> str:
    return "has it" if deviation in entry.record.deviations else "lacks it"
