"""Evaluate features that were extracted elsewhere, and write the record."""

import os
import time
from hashlib import sha256
from pathlib import Path
from typing import get_args

from rsa_eval.evaluators.given import GivenEvaluator
from rsa_eval.evaluators.shared.feature_checks import with_doubts
from rsa_eval.features.given import GivenFeatures, read_given
from rsa_eval.features.given_settings import GivenFeaturesConfig
from rsa_eval.records.make import save_record
from rsa_eval.records.record import Model, Record, describe_given_features
from rsa_pretrain.components.settings import Stage
from rsa_pretrain.data.image_set import UNLABELLED
from rsa_pretrain.plumbing.config.files import to_tree
from rsa_pretrain.plumbing.device import (
    describe_hardware,
    explained_out_of_memory,
    resolve_device,
)
from rsa_pretrain.plumbing.errors import UserError

_MEMORY_HINTS = {"cuda": "set device=cpu", "cpu": "free some, or give fewer or narrower features"}
_UNKNOWN = "features given in files: network, layers, image transform and precision unknown"
# What features of one network under one transform share.
_SAME_ORIGIN = ("weights", "transform", "layers", "precision")
_WITHOUT_CLASSES = "diagnostics"


def make_record_of_features(
    train: Path, test: Path, evaluator: GivenEvaluator, config: GivenFeaturesConfig, path: Path
) -> Record:
    """Evaluate features read from files, and write the record.

    Args:
        train: File of the training features, as ``read_features`` reads it.
        test: File of the test features.
        evaluator: The evaluator.
        config: The evaluator's settings.
        path: File of the record.

    Raises:
        UserError: If a file cannot be used, the two do not fit each other, several processes were
            started, or as raised by the evaluation.
    """
    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise UserError("given features are evaluated by one process; start it without torchrun")
    device = resolve_device(config.device)
    started = time.perf_counter()
    known, asked = read_given(train), read_given(test)
    _check_pair(known, asked, needs_classes=evaluator.name != _WITHOUT_CLASSES)
    if config.num_classes is None:
        _check_largest_label(known)
    with explained_out_of_memory(_MEMORY_HINTS[device.type]):
        scores, departures = evaluator.evaluate(known.labelled, asked.labelled, config, device)
    scores = with_doubts(scores, known.labelled, asked.labelled, config.num_classes)
    given = {"train": known.facts(), "test": asked.facts()}
    keys = [str(row) for row in range(len(asked.labelled.labels))]
    return save_record(
        scores.result({"given": given}, [*_deviations(known, asked), *departures], keys),
        path,
        kind=evaluator.name,
        protocol=config.protocol,
        data_set=config.data_set,
        model=describe_given(known, asked),
        config=config,
        seed=config.seed,
        hardware=describe_hardware(device),
        seconds=time.perf_counter() - started,
    )


def describe_given(train: GivenFeatures, test: GivenFeatures) -> Model:
    """Describe given features as a model; its hash is of the content of all their files."""
    hashes = [*train.sha256.values(), *test.sha256.values()]
    return describe_given_features(train.path, sha256("\n".join(hashes).encode()).hexdigest())


def _check_pair(train: GivenFeatures, test: GivenFeatures, *, needs_classes: bool) -> None:
    """Refuse two files that are not of the same network's features of two sets of images."""
    if [*train.sha256.values()] == [*test.sha256.values()]:
        raise UserError(
            f"'{train.path}' and '{test.path}' have the same content; expected features of "
            "training images and of test images"
        )
    widths = [given.labelled.features.shape[1] for given in (train, test)]
    if widths[0] != widths[1]:
        raise UserError(
            f"'{train.path}' has features of width {widths[0]}, '{test.path}' of {widths[1]}; "
            "expected features of one network"
        )
    for given in (train, test):
        count = int((given.labelled.labels == UNLABELLED).sum())
        if count and needs_classes:
            raise UserError(
                f"{count:,} of {len(given.labelled.labels):,} images in '{given.path}' have no "
                f"class (label {UNLABELLED}); expected a class index from 0 on for each"
            )
    if train.identity is not None and test.identity is not None:
        origins = [to_tree(given) for given in (train.identity, test.identity)]
        differing = [key for key in _SAME_ORIGIN if origins[0][key] != origins[1][key]]
        if differing:
            raise UserError(
                f"'{train.path}' and '{test.path}' are caches of different {', '.join(differing)}; "
                "expected features of one network and transform"
            )


def _check_largest_label(train: GivenFeatures) -> None:
    """Refuse labels that look like anything but class indices, before a matrix of that size."""
    labels = train.labelled.labels
    largest = int(labels.max())
    if largest >= len(labels):
        raise UserError(
            f"'{train.path}' has the label {largest} among {len(labels):,} images; expected class "
            f"indices from 0 on: set num_classes={largest + 1} if there are so many classes"
        )


def _deviations(train: GivenFeatures, test: GivenFeatures) -> list[str]:
    origin = _UNKNOWN
    if train.identity is not None and test.identity is not None:
        layers, precision = " and ".join(train.identity.layers), train.identity.precision
        origin = f"features given in caches, of {layers} at {precision}"
        if train.identity.layers[0] in get_args(Stage):  # other networks' layers begin with a name
            origin += ": network unknown"
    stored = [given.stored_type for given in (train, test)]
    types = dict.fromkeys(name for name in stored if name != "float32")
    return [origin, *(f"features given as {name}, used as float32" for name in types)]
