"""Reduce a record to the facts that identify its model, its evaluation and its trial."""

import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from rsa_eval.config import result_settings
from rsa_eval.records.detection_recipe import settings_of
from rsa_eval.records.image_sets import ANNOTATIONS_SHA256, name_training_set
from rsa_eval.records.record import Record
from rsa_pretrain.config import RESUMABLE_CHANGES, PretrainConfig, with_old_orientation
from rsa_pretrain.data.sets import DATA_SETS
from rsa_pretrain.plumbing.config.files import flatten, parse_tree, to_tree
from rsa_pretrain.plumbing.errors import UserError

# Settings that differ between trials or only decide where a result is stored.
_OF_A_TRIAL = frozenset({"seed", "output_dir"})
# Beginnings of settings that differ between data sets where all else is alike.
_OF_A_DATA_SET = (
    *("multi_label", "masks", "data.name", "data.train_dir", "data.test_dir", "data.on_broken"),
    *(f"data.{name}" for entry in DATA_SETS for name in entry.settings),
)
# Each seed extends a different run; that run's schedule, recorded beside it, must match.
_PARENT = "extends.backbone_sha256"


def shared_settings(record: Record) -> dict[str, Any]:
    """Return the evaluation's settings except seeds and paths, by dotted key."""
    settings = result_settings(settings_of(record))
    return {key: value for key, value in settings.items() if key not in _OF_A_TRIAL}


def shared_training(pretraining: Mapping[str, Any]) -> dict[str, Any]:
    """Return pretraining settings except those of seed, paths and speed, by dotted key.

    Settings introduced after the run take the values that describe its behaviour.
    """
    with suppress(UserError):  # settings of another version of the toolkit stay as recorded
        known = with_old_orientation(pretraining)
        pretraining = to_tree(parse_tree(PretrainConfig, known, "pretraining"))
    unlike = _OF_A_TRIAL | RESUMABLE_CHANGES
    return {
        key: value
        for key, value in flatten(pretraining).items()
        if key not in unlike and not key.endswith(_PARENT)
    }


def weights_seed(record: Record) -> int | None:
    """Return the seed of the run that trained a record's weights; None if it has none."""
    return None if record.model.metadata is None else record.model.metadata.seed


def facts_across_sets(record: Record) -> dict[str, Any]:
    """Return what the groups of one model have in common on all data sets, by dotted key.

    These are its network, its training or weights, and the evaluation's settings except seeds,
    paths and what belongs to a data set; settings below ``data`` may still differ from set to set.
    """
    settings = shared_settings(record)
    own = {key: value for key, value in settings.items() if not key.startswith(_OF_A_DATA_SET)}
    return flatten({**own, **_model(record)})


def group_key(record: Record) -> str:
    """Return what the trials of a group have in common: all but seeds, paths and speed."""
    return _canonical(
        [
            record.kind,
            record.protocol,
            record.num_samples,
            record.headline,
            sorted(record.deviations),
            record.details.get(ANNOTATIONS_SHA256),
            shared_settings(record),
            _model(record),
        ]
    )


def _model(record: Record) -> dict[str, Any]:
    """Return the network and its training, without the seed, or its weights."""
    model = record.model
    network = model.backbone.model_dump() if model.backbone else model.other_network
    if model.pretraining is None or model.metadata is None:
        return {"network": network, "weights": None if model.is_random else model.sha256}
    data_set, data = model.metadata.data_set or "", model.pretraining.get("data")
    return {
        "network": network,
        "pretraining": shared_training(model.pretraining),
        "trained_on": name_training_set(data_set, data),
        "epochs": model.metadata.epochs,
    }


def network_key(record: Record) -> str:
    """Return what tells a group's networks apart: the training's seed, else the weights.

    The same training run twice is one network, whose files may differ in their dates.
    """
    seed = weights_seed(record)
    if record.model.pretraining is not None and seed is not None:
        return f"seed {seed}"
    is_random = record.model.is_random or record.model.sha256 is None
    return f"random {record.seeds}" if is_random else str(record.model.sha256)


def trial_key(record: Record) -> str:
    """Return what distinguishes a group's trials: the network and the evaluation's seeds."""
    return _canonical([network_key(record), record.seeds])


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)
