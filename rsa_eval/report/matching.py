"""Which of our numbers belongs into which cell of the paper's tables, and what sets it apart."""

from typing import Any

from rsa_eval.published import Published, Weights
from rsa_eval.published_numbers import SMALL_SETS
from rsa_eval.record import Model
from rsa_eval.report.groups import Group
from rsa_pretrain.config import ViewsConfig
from rsa_pretrain.config_files import flatten, to_tree

_IMAGE_SIZE = {"cifar10": 32, "cifar100": 32, "stl10": 64, "tiny_imagenet": 64}
_BASE_LR = {100: 0.9, 200: 0.6}  # RSA on ImageNet-1K, by epochs
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
    """List how the trials depart from the paper, in pretraining and in evaluation."""
    record = group.first
    if cell.weights is None or cell.weights.method is None:
        return record.deviations
    if record.model.pretraining is None:
        return [*record.deviations, "the settings of the pretraining are not recorded"]
    found = flatten(record.model.pretraining)
    training = [
        f"pretraining: {key} {_words(found[key])} (paper: {_words(expected)})"
        for key, expected in _paper_settings(cell.weights).items()
        if key in found and not _equal(found[key], expected)
    ]
    return [*record.deviations, *training]


def _protocols(cell: Published) -> tuple[str, ...]:
    """Name the protocols under which the paper measured."""
    if cell.kind == "detection" and cell.place is not None:
        name = _DETECTION_PROTOCOLS[cell.place.table]
        return (name, f"{name}_random", f"{name}_supervised")
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


def _paper_settings(weights: Weights) -> dict[str, Any]:
    """Return what the paper states of a pretraining, by dotted key."""
    settings: dict[str, Any] = {"data.num_train_images": None, "backbone.stem": "standard"}
    if weights.batch_size is not None:
        settings["training.global_batch_size"] = weights.batch_size
    if weights.data_set == "imagenet" and weights.method != "rsa":
        return settings  # quoted by the paper: other works' settings
    settings |= {
        **flatten({"views": to_tree(ViewsConfig())}),
        "method.ema_momentum": 0.99,
        "optimizer.sgd_momentum": 0.9,
    }
    if weights.data_set in SMALL_SETS:
        settings |= {
            "backbone.stem": "cifar",
            "data.image_size": _IMAGE_SIZE[weights.data_set],
            "optimizer.name": "sgd",
            "optimizer.base_lr": 0.1,
            "optimizer.weight_decay": 5e-4,
        }
        if weights.method in ("rsa", "byol"):
            settings |= {"method.hidden_dim": 1024, "method.output_dim": 128}
    elif weights.data_set == "imagenet100":
        settings |= {
            "optimizer.name": "sgd",
            "optimizer.base_lr": 0.2,
            "optimizer.weight_decay": 1e-4,
        }
    else:
        settings |= {
            "optimizer.name": "lars",
            "optimizer.base_lr": _BASE_LR[weights.epochs or 200],
            "optimizer.weight_decay": 1e-6,
        }
    return settings


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
