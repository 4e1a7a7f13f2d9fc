"""Load the answers of trials, and check that all are to the same images."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rsa_eval.records.class_predictions import ClassPredictions
from rsa_eval.records.groups import Group
from rsa_eval.records.image_sets import annotations_hash
from rsa_eval.records.predictions import KeyedPredictions, read_predictions
from rsa_eval.records.record import Record
from rsa_eval.verdicts.resampling import TrialScore
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.name_lists import first_of

# A table compares each of its models with all others, whose replicates are kept with the answers.
_CACHE: dict[tuple[Path, str], KeyedPredictions] = {}
_MOST_KEPT = 64


@dataclass(frozen=True)
class _Loaded:
    path: Path
    record: Record
    kept: KeyedPredictions


class MetricMissing(UserError):
    """A trial lacks the metric to compare by, which other evaluations may have."""


def load_scores(groups: Sequence[Group], metric: str) -> list[list[TrialScore]]:
    """Return the trials of several models in one evaluation, by model.

    They have their answers if every record keeps some.

    Raises:
        MetricMissing: If a trial lacks the metric.
        UserError: If test images or their annotations differ, or a file of predictions cannot be
            used.
    """
    trials = [
        (path, record)
        for group in groups
        for path, record in zip(group.paths, group.records, strict=True)
    ]
    _check_same_annotations(trials)
    loaded: dict[Path, _Loaded] = {}
    if all(record.predictions is not None for _, record in trials):
        for path, record in trials:
            loaded[path] = _Loaded(path, record, _read(path, record))
            _check_same_images(loaded[trials[0][0]], loaded[path])
    return [
        [
            _score(path, record, loaded.get(path), metric)
            for path, record in zip(group.paths, group.records, strict=True)
        ]
        for group in groups
    ]


def _read(path: Path, record: Record) -> KeyedPredictions:
    assert record.predictions is not None
    key = path.absolute(), record.predictions.sha256
    if key not in _CACHE:
        if len(_CACHE) == _MOST_KEPT:
            _CACHE.clear()
        _CACHE[key] = read_predictions(path, record)
    return _CACHE[key]


def _score(path: Path, record: Record, loaded: _Loaded | None, metric: str) -> TrialScore:
    predictions = None if loaded is None else loaded.kept.predictions
    if predictions is None:
        if metric in record.metrics:
            return TrialScore(record.metrics[metric].value, None)
        found = None
    else:
        found = predictions.value(metric)
    if found is None:
        more = " or mean_per_class" if isinstance(predictions, ClassPredictions) else ""
        raise MetricMissing(
            f"'{path}' cannot be compared by '{metric}'; expected one of "
            f"{', '.join(record.metrics)}{more}"
        )
    return TrialScore(found, predictions)


def _check_same_annotations(trials: Sequence[tuple[Path, Record]]) -> None:
    """Refuse detectors that are known to be judged by different annotations."""
    by_hash = {annotations_hash(record, "test"): path for path, record in trials}
    paths = [f"'{path}'" for known, path in by_hash.items() if known is not None]
    if len(paths) > 1:
        raise UserError(
            f"{' and '.join(paths[:2])} are judged by test annotations of different content, as "
            "their SHA-256 tells; evaluate both by one"
        )


def _check_same_images(one: _Loaded, other: _Loaded) -> None:
    """Refuse answers to different images, saying in what they differ."""
    paths = f"'{one.path}' and '{other.path}'"
    ours, theirs = one.kept.keys, other.kept.keys
    if ours != theirs:
        raise UserError(f"{paths} have different test images: {_difference(ours, theirs)}")
    pair: tuple[Any, Any] = one.kept.predictions, other.kept.predictions
    if type(pair[0]) is not type(pair[1]):
        raise UserError(f"{paths} have different kinds of answers; evaluate both alike")
    if isinstance(pair[0], ClassPredictions) and isinstance(pair[1], ClassPredictions):
        differing = np.flatnonzero(pair[0].labels != pair[1].labels)
        if len(differing):
            raise UserError(
                f"{paths} give {len(differing):,} of {len(ours):,} test images another class: "
                f"{first_of([ours[index] for index in differing])}; evaluate both on one set"
            )
    if not pair[0].is_of_same_truth(pair[1]):
        raise UserError(
            f"{paths} are judged by different annotations of the same test images; evaluate both "
            "by one"
        )
    hashes = {_fingerprint(each.record) for each in (one, other)} - {None}
    if len(hashes) > 1:
        raise UserError(
            f"{paths} have test images of the same names that differ in their files or in how "
            "they are read (data.exif_orientation); evaluate both on one set"
        )


def _difference(ours: Sequence[str], theirs: Sequence[str]) -> str:
    counts = f"{len(ours):,} and {len(theirs):,} images"
    only = [sorted(set(keys) - set(others)) for keys, others in ((ours, theirs), (theirs, ours))]
    if not only[0] and not only[1]:
        return f"{counts}, in another order; evaluate both on one set"
    where = [
        f"{len(names):,} only in the {place}: {first_of(names)}"
        for names, place in zip(only, ("first", "second"), strict=True)
        if names
    ]
    return f"{counts}, {'; '.join(where)}; evaluate both on the same images"


def _fingerprint(record: Record) -> str | None:
    images = record.details.get("images")
    if not isinstance(images, dict):
        return None
    test = images.get("test") or images.get("train")  # training images left out one by one
    found = test.get("sha256") if isinstance(test, dict) else None
    return found if isinstance(found, str) else None
