"""Identify the recipe of a detector by its name and a fingerprint of what defines its protocol.

Two results belong into one column only if their recipes have one fingerprint. It covers the input,
the network, the numbers of regions, the solver, the data set and precise BatchNorm; not the seed,
paths, hardware, speed or engine: both engines train the same recipe. The network is the one that
was trained, whether the recipe names it or takes the checkpoint's.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rsa_eval.config import DETECTION_BEFORE_THERE_WAS_A_CHOICE, result_settings
from rsa_eval.records.record import Record
from rsa_pretrain.components.settings import BackboneConfig

RECIPE_FINGERPRINT = "recipe_fingerprint"
"""Key of a detector's details."""

_SECTIONS = ("input.", "model.", "sampling.", "solver.")
_OTHER_SETTINGS = frozenset(
    {
        *("data.name", "data.format", "data.train", "data.test", "data.classes"),
        *("data.keep_empty_images", "data.exif_orientation"),
        "training.precise_bn_iterations",
    }
)
# Settings of the first recipes: a record without one of them does not state its recipe.
_ALWAYS_THERE = frozenset(
    f"{section}.{name}"
    for section, names in {
        "data": "name",
        "input": (
            "train_short_sides_pixels test_short_side_pixels max_side_pixels flip_probability"
        ),
        "model": (
            "arch trunk_norm freeze_at head_norm box_head_num_convs box_head_num_fcs "
            "mask_head_num_convs"
        ),
        "sampling": ("anchors_per_image proposals_per_image rois_per_image detections_per_image"),
        "solver": (
            "base_lr batch_size reference_batch_size iterations decay_at warmup_iterations "
            "warmup_factor sgd_momentum weight_decay norm_weight_decay"
        ),
        "training": "precise_bn_iterations",
    }.items()
    for name in names.split()
)
_ADDED_LATER = DETECTION_BEFORE_THERE_WAS_A_CHOICE | {"data.exif_orientation": True}
_DIGITS = 8
_FINGERPRINT = re.compile(rf"[0-9a-f]{{{_DIGITS}}}")
# Runs of random and supervised weights once had names of their own.
_STARTS = ("_random", "_supervised")


@dataclass(frozen=True)
class RecipeIdentity:
    """The name and the fingerprint of a detector's recipe."""

    name: str
    fingerprint: str | None
    """Eight hexadecimal digits; None if the record does not state all settings."""
    key: str
    """Equal for equal recipes only; unknown ones are equal if they state the same settings."""

    @property
    def text(self) -> str:
        """The name with the fingerprint."""
        return f"{self.name} [{self.fingerprint or 'unknown recipe'}]"


def with_network(tree: Mapping[str, Any], backbone: BackboneConfig | None) -> Mapping[str, Any]:
    """Return a recipe's settings with the network of the weights where they leave it open.

    Args:
        tree: All settings of a recipe as plain values.
        backbone: The network of the weights; None if it is unknown.
    """
    model = tree.get("model")
    if backbone is None or not isinstance(model, Mapping) or model.get("arch", "") is not None:
        return tree
    return {**tree, "model": {**model, "arch": backbone.arch}}


def settings_of(record: Record) -> Mapping[str, Any]:
    """Return a record's settings as plain values; a detector's with the network of its weights."""
    if record.kind != "detection":
        return record.config
    return with_network(record.config, record.model.backbone)


def recipe_settings(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a recipe that define its protocol, by dotted key.

    Args:
        tree: All settings of a recipe as plain values.
    """
    return {
        key: value
        for key, value in result_settings(tree).items()
        if key.startswith(_SECTIONS) or key in _OTHER_SETTINGS
    }


def recipe_fingerprint(tree: Mapping[str, Any]) -> str | None:
    """Return eight digits that are equal for recipes of one protocol.

    A setting that was added later does not count while it has the value that describes what was
    done before.

    Args:
        tree: All settings of a recipe as plain values.

    Returns:
        None if settings are missing.
    """
    settings = recipe_settings(tree)
    return _hash(settings) if settings.keys() >= _ALWAYS_THERE else None


def recipe_of(record: Record) -> RecipeIdentity | None:
    """Return the recipe of a detector's record; None for other evaluations.

    Records without a fingerprint, which are older, get that of their settings; so do those whose
    recipe leaves the network open, as their fingerprints once did.
    """
    if record.kind != "detection":
        return None
    settings = settings_of(record)
    found = record.details.get(RECIPE_FINGERPRINT)
    is_usable = isinstance(found, str) and _FINGERPRINT.fullmatch(found)
    if not is_usable or settings is not record.config:
        found = recipe_fingerprint(settings)
    name = record.protocol
    for start in _STARTS:
        name = name.removesuffix(start)
    key = found or f"unknown {_hash(recipe_settings(settings))}"
    return RecipeIdentity(name, found, key)


def _hash(settings: Mapping[str, Any]) -> str:
    stated = {
        key: _plain(value)
        for key, value in settings.items()
        if key not in _ADDED_LATER or _plain(value) != _plain(_ADDED_LATER[key])
    }
    text = json.dumps(stated, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]


def _plain(value: Any) -> Any:
    """Return a value that is equal for equal numbers, whole or not, and for lists and tuples."""
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    return value
