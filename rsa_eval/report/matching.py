"""Match our results to cells of the paper's tables, and list how they depart from the recipes."""

from typing import Any

from rsa_eval.published import Published, Weights
from rsa_eval.published_numbers import SMALL_SETS
from rsa_eval.record import Model
from rsa_eval.report.groups import Group
from rsa_eval.reproduction.rows import run_of
from rsa_pretrain.config import RESUMABLE_CHANGES
from rsa_pretrain.config_files import flatten, to_tree

# Seeds are trials; both implementations of the views are the same in distribution.
_NEUTRAL = RESUMABLE_CHANGES | {"seed", "views.implementation"}
_DETECTION_PROTOCOLS = {5: "mask_rcnn_R_50_FPN_1x", 6: "mask_rcnn_R_50_FPN_2x"}


def belongs(group: Group, cell: Published) -> bool:
    """Whether the trials are of the cell's evaluation and of its weights.

    What a record does not tell is taken for different: nothing is guessed.
    """
    record = group.first
    return (
        cell.weights is not None
        and (record.kind, record.data_set) == (cell.kind, cell.data_set)
        and record.protocol in _protocols(cell)
        and _are(record.model, cell.weights)
    )


def departures(group: Group, cell: Published) -> list[str]:
    """List how the trials depart from the recipe of a cell, in pretraining and in evaluation."""
    record = group.first
    if cell.weights is None or cell.weights.method is None:
        return record.deviations
    if record.model.pretraining is None:
        return [*record.deviations, "the settings of the pretraining are not recorded"]
    found = flatten(record.model.pretraining)
    recipe = run_of(cell)
    training = [
        f"pretraining: {key} {_words(found[key])} (recipe: {_words(expected)})"
        for key, expected in flatten(to_tree(recipe) if recipe else {}).items()
        if key in found and not _is_neutral(key) and not _equal(found[key], expected)
    ]
    return [*record.deviations, *training]


def _is_neutral(key: str) -> bool:
    """Whether a setting leaves what a run is: where and how fast it runs, and what is watched."""
    watched = key.startswith("monitor.") and key != "monitor.knn_every_epochs"  # holds images out
    return watched or key in _NEUTRAL


def _protocols(cell: Published) -> tuple[str, ...]:
    """Name the protocols under which the paper measured."""
    if cell.kind == "detection" and cell.place is not None:
        return (_DETECTION_PROTOCOLS[cell.place.table],)
    return ("moco_v2",) if cell.data_set in SMALL_SETS else ("mean_shift",)


def _are(model: Model, weights: Weights) -> bool:
    if model.backbone.arch != weights.arch:
        return False
    if weights.method is None:
        return model.checkpoint is None
    metadata, pretraining = model.metadata, flatten(model.pretraining or {})
    if metadata is None:
        return False
    # A checkpoint at epoch 200 of 800 has not gone through the schedule of a run of 200, nor has
    # a run of 100 that was extended.
    epochs = {metadata.epochs, pretraining.get("training.epochs", metadata.epochs)}
    stated = {
        "method.views": weights.views,
        "method.beta_mode": weights.beta_mode,
        "method.beta_base": weights.beta_base,
    }
    return (
        (metadata.method, metadata.data_set) == (weights.method, weights.data_set)
        and (weights.epochs is None or epochs == {weights.epochs})
        and "extends.step" not in pretraining
        and all(
            value is None or _equal(pretraining.get(key), value) for key, value in stated.items()
        )
    )


def _equal(found: Any, expected: Any) -> bool:
    if isinstance(found, list | tuple) and isinstance(expected, list | tuple):
        return list(found) == list(expected)
    return bool(found == expected)


def _words(value: Any) -> str:
    if value is None:
        return "all"
    if isinstance(value, list | tuple):
        return " to ".join(_words(entry) for entry in value)
    return f"{value:g}" if isinstance(value, float) else str(value)
