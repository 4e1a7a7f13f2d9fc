"""Match our results to cells of the paper's tables, and list their departures from the recipes."""

from collections.abc import Mapping
from typing import Any

from rsa_eval.evaluators.shared.deviations import setting_text
from rsa_eval.paper.detection_recipes import follows_config, is_on_published_images
from rsa_eval.paper.published import Published
from rsa_eval.paper.rows import Detection, run_of, work_of
from rsa_eval.records.detection_recipe import recipe_of
from rsa_eval.records.groups import Group
from rsa_eval.records.record import Model
from rsa_pretrain.config import RESUMABLE_CHANGES, PretrainConfig
from rsa_pretrain.plumbing.config.files import flatten, to_tree

# Seeds are trials.
_NEUTRAL = RESUMABLE_CHANGES | {"seed"}
# Settings that distinguish rows of the same method and length.
_ROW_KEYS = ("method.views", "method.beta_mode", "method.beta_base")
# Numbers of images; null takes all.
_COUNTS = ("data.num_train_images", "data.num_test_images")
_DETECTOR = "resnet50"


def belongs(group: Group, cell: Published) -> bool:
    """Return whether the trials have the cell's evaluation and weights.

    A detector must have been trained by the cell's shipped config, under its name and with its
    settings, and tested on as many images as the paper's.
    Anything a record does not state counts as different: nothing is guessed.
    """
    record, work = group.first, work_of(cell)
    if work is None or (record.kind, record.data_set) != (cell.kind, cell.data_set):
        return False
    if isinstance(work, Detection):
        is_evaluated_alike = is_on_published_images(record) and follows_config(
            recipe_of(record), work.config.stem
        )
    else:
        is_evaluated_alike = record.protocol == work.suite.name
    return is_evaluated_alike and _comes_from(record.model, run_of(cell), cell.epochs)


def departures(group: Group, cell: Published) -> list[str]:
    """List the trials' departures from a cell's recipe, in pretraining and evaluation."""
    record = group.first
    recipe = run_of(cell)
    if recipe is None:
        return record.deviations
    if record.model.pretraining is None:
        return [*record.deviations, "the settings of the pretraining are not recorded"]
    training = training_departures(record.model.pretraining, recipe)
    return list(dict.fromkeys([*record.deviations, *training]))


def training_departures(pretraining: Mapping[str, Any], recipe: PretrainConfig) -> list[str]:
    """List a run's departures from a recipe, with both values.

    Args:
        pretraining: The run's settings, as plain values.
        recipe: The recipe.
    """
    found = flatten(pretraining)
    return [
        f"pretraining: {key} {_text(key, found[key])} (recipe: {_text(key, expected)})"
        for key, expected in flatten(to_tree(recipe)).items()
        if key in found and not _is_neutral(key) and not _equal(found[key], expected)
    ]


def _is_neutral(key: str) -> bool:
    """Return whether a setting does not affect the result: paths, speed or monitoring."""
    watched = key.startswith("monitor.") and key != "monitor.knn_every_epochs"  # holds images out
    return watched or key in _NEUTRAL


def _comes_from(model: Model, run: PretrainConfig | None, epochs: int | None) -> bool:
    """Return whether weights come from a run; None means random weights of the detector network."""
    if run is None:
        return model.is_random and _arch(model) == _DETECTOR
    metadata, pretraining = model.metadata, flatten(model.pretraining or {})
    if metadata is None:
        return False
    # A checkpoint at epoch 200 of 800 has not followed the schedule of a run of 200, nor has an
    # extended run of 100.
    lengths = {metadata.epochs, pretraining.get("training.epochs", metadata.epochs)}
    found = (_arch(model), metadata.method, metadata.data_set)
    stated = flatten({"method": to_tree(run.method)})
    return (
        found == (run.backbone.name, run.method.name, run.data.name)
        and (epochs is None or lengths == {epochs})
        and "extends.step" not in pretraining
        and all(pretraining.get(key) == stated[key] for key in _ROW_KEYS if key in stated)
    )


def _arch(model: Model) -> str | None:
    return None if model.backbone is None else model.backbone.name


def _equal(found: Any, expected: Any) -> bool:
    if isinstance(found, list | tuple) and isinstance(expected, list | tuple):
        return list(found) == list(expected)
    return bool(found == expected)


def _text(key: str, value: Any) -> str:
    return "all" if value is None and key in _COUNTS else setting_text(value, joint=" to ")
