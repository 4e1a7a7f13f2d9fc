"""Convert a whole Mask R-CNN's tensors between the torchvision engine and detectron2.

``model_names`` has the names. Three tensors also differ in their rows: torchvision's classes
begin with the background, detectron2's end with it, and only torchvision has offsets and a mask for
it, which nothing reads.
"""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from detection.exchange.model_names import (
    BOX_OFFSETS,
    CLASS_SCORE,
    MASK_LOGITS,
    HeadLayers,
    ModelKeyMap,
)
from detection.exchange.trunk_names import features_of
from rsa_pretrain.plumbing.errors import UserError

Tensors = Mapping[str, Tensor]

_MASK_HEAD = "roi_heads.mask"
_LEAVES = ("weight", "bias")
_COORDINATES = 4
UNREAD_ROWS = {BOX_OFFSETS: _COORDINATES, MASK_LOGITS: 1}
"""Number of leading rows of a layer, in our names, that belong to the background alone."""

# Layers are counted by their weights' names.
_OURS = {
    "box_convs": r"roi_heads\.box_head\.\d+\.0\.weight",
    "box_fcs": r"roi_heads\.box_head\.\d+\.weight",
    "mask_convs": r"roi_heads\.mask_head\.\d+\.0\.weight",
}
_DETECTRON2 = {
    "box_convs": r"roi_heads\.box_head\.conv\d+\.weight",
    "box_fcs": r"roi_heads\.box_head\.fc\d+\.weight",
    "mask_convs": r"roi_heads\.mask_head\.mask_fcn\d+\.weight",
}


def heads_of(tensors: Tensors) -> HeadLayers:
    """Count the layers of a model in the torchvision engine's names."""
    return _count(tensors, _OURS)


def num_classes(tensors: Tensors) -> int:
    """Return a model's number of categories, without the background, in the torchvision engine.

    Raises:
        UserError: If the model is not a Mask R-CNN with boxes and masks for each class, or one
            without its mask head.
    """
    _check_predictors(tensors)
    rows = {name: len(tensors[f"{name}.weight"]) for name in (CLASS_SCORE, *unread_rows(tensors))}
    scores = rows[CLASS_SCORE]
    boxes, masks = rows[BOX_OFFSETS], rows.get(MASK_LOGITS, scores)
    if (boxes, masks) != (_COORDINATES * scores, scores):
        raise UserError(
            f"the model has {scores - 1} classes, but offsets for {boxes / _COORDINATES - 1:g} and "
            f"masks for {masks - 1}: class-agnostic heads have no counterpart here"
        )
    return scores - 1


def has_mask_head(tensors: Tensors) -> bool:
    """Return whether a model, in either library's names, predicts masks."""
    return any(name.startswith(_MASK_HEAD) for name in tensors)


def unread_rows(tensors: Tensors) -> dict[str, int]:
    """Return ``UNREAD_ROWS`` of the layers that a model has."""
    has_masks = has_mask_head(tensors)
    return {name: rows for name, rows in UNREAD_ROWS.items() if has_masks or name != MASK_LOGITS}


def to_detectron2_model(tensors: Tensors) -> dict[str, Tensor]:
    """Rename and reorder a model of the torchvision engine; each tensor is used once.

    The background's own offsets and mask are left out.

    Raises:
        UserError: If the model is not a Mask R-CNN with boxes and masks for each class.
        ValueError: If a name is not a tensor of such a model.
    """
    num_classes(tensors)
    names = ModelKeyMap(heads_of(tensors))
    model = dict(tensors)
    for leaf in _LEAVES:
        scores = tensors[f"{CLASS_SCORE}.{leaf}"]
        model[f"{CLASS_SCORE}.{leaf}"] = torch.cat([scores[1:], scores[:1]])
        for module, rows in unread_rows(tensors).items():
            model[f"{module}.{leaf}"] = tensors[f"{module}.{leaf}"][rows:]
    return {names.to_detectron2(name): tensor for name, tensor in model.items()}


def to_torchvision_model(tensors: Tensors) -> dict[str, Tensor]:
    """Undo ``to_detectron2_model``; the background's own offsets and mask become 0.

    Raises:
        UserError: If the model is not a Mask R-CNN with boxes and masks for each class.
        ValueError: If a name is not a tensor of such a model.
    """
    names = ModelKeyMap(_count(tensors, _DETECTRON2))
    model = {names.to_torchvision(name): tensor for name, tensor in tensors.items()}
    _check_predictors(model)
    for leaf in _LEAVES:
        for module, rows in unread_rows(model).items():
            known = model[f"{module}.{leaf}"]
            model[f"{module}.{leaf}"] = torch.cat([known.new_zeros(rows, *known.shape[1:]), known])
        scores = model[f"{CLASS_SCORE}.{leaf}"]
        model[f"{CLASS_SCORE}.{leaf}"] = torch.cat([scores[-1:], scores[:-1]])
    num_classes(model)
    return model


def _check_predictors(tensors: Tensors) -> None:
    modules = (CLASS_SCORE, *unread_rows(tensors))
    names = [f"{module}.{leaf}" for module in modules for leaf in _LEAVES]
    missing = [name for name in names if name not in tensors]
    if missing:
        raise UserError(f"the model is not a Mask R-CNN: it lacks {', '.join(missing)}")


def _count(tensors: Tensors, patterns: Mapping[str, str]) -> HeadLayers:
    return HeadLayers(
        features_of(tensors),
        **{
            kind: sum(re.fullmatch(pattern, name) is not None for name in tensors)
            for kind, pattern in patterns.items()
        },
    )
