"""Load the answers of trials, and check that all are to the same images."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rsa_eval.records.class_predictions import ClassPredictions
from rsa_eval.records.groups import Group
from rsa_eval.records.predictions import KeyedPredictions, read_predictions
from rsa_eval.records.record import Record
from rsa_eval.verdicts.difference import TrialScore
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.name_lists import first_of


@dataclass(frozen=True)
class _Loaded:
    path: Path
    record: Record
    kept: KeyedPredictions


def load_scores(groups: Sequence[Group], metric: str) -> list[list[TrialScore]]:
    """Return the trials of several models in one evaluation, by model.

    They have their answers if every record keeps some.

    Raises:
        UserError: If test images differ, a file of predictions cannot be used, or a trial lacks the
            metric.
    """
    trials = [
        (path, record)
        for group in groups
        for path, record in zip(group.paths, group.records, strict=True)
    ]
    loaded: dict[Path, _Loaded] = {}
    if all(record.predictions is not None for _, record in trials):
        for path, record in trials:
            loaded[path] = _Loaded(path, record, read_predictions(path, record))
            _check_same_images(loaded[trials[0][0]], loaded[path])
    return [
        [
            _score(path, record, loaded.get(path), metric)
            for path, record in zip(group.paths, group.records, strict=True)
        ]
        for group in groups
    ]


def _score(path: Path, record: Record, loaded: _Loaded | None, metric: str) -> TrialScore:
    predictions = None if loaded is None else loaded.kept.predictions
    if metric in record.metrics:
        return TrialScore(record.metrics[metric].value, predictions)
    value = None if predictions is None else predictions.value(metric)
    if value is None:
        raise UserError(
            f"'{path}' has no metric '{metric}'; expected one of {', '.join(record.metrics)}"
            + ("" if predictions is None else " or mean_per_class")
        )
    return TrialScore(value, predictions)


def _check_same_images(one: _Loaded, other: _Loaded) -> None:
    """Refuse answers to different images, saying in what they differ."""
    paths = f"'{one.path}' and '{other.path}'"
    ours, theirs = one.kept.keys, other.kept.keys
    if ours != theirs:
        raise UserError(f"{paths} have different test images: {_difference(ours, theirs)}")
    pair = one.kept.predictions, other.kept.predictions
    if type(pair[0]) is not type(pair[1]):
        raise UserError(f"{paths} have different kinds of answers; evaluate both alike")
    if isinstance(pair[0], ClassPredictions) and isinstance(pair[1], ClassPredictions):
        differing = np.flatnonzero(pair[0].labels != pair[1].labels)
        if len(differing):
            raise UserError(
                f"{paths} give {len(differing):,} of {len(ours):,} test images another class: "
                f"{first_of([ours[index] for index in differing])}; evaluate both on one set"
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
    test = images.get("test") if isinstance(images, dict) else None
    return test.get("sha256") if isinstance(test, dict) else None
