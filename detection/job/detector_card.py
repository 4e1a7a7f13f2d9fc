"""Describe what a trained detector's weights omit: classes, input, anchors and limits."""

import json
from collections.abc import Mapping
from pathlib import Path

from detection.recipe.architecture import ModelConfig, SamplingConfig
from detection.recipe.recipe import InputConfig, Recipe
from rsa_pretrain.data.read_settings import DEFAULT_RULES, ReadRules
from rsa_pretrain.plumbing.config.files import Section, parse_tree
from rsa_pretrain.plumbing.errors import UserError

CARD_KEY = "rsa_detector"
"""The card's place in a file of weights."""


class DetectedCategory(Section):
    """A class of a detector."""

    id: int
    """Id in the training annotations."""
    name: str
    """Name, likewise."""


class DetectorCard(Section):
    """Settings that a detector's weights need to reproduce its run's detections."""

    categories: tuple[DetectedCategory, ...] | None = None
    """The classes of label 1, 2, …, in order of id; null if they are unknown."""
    input: InputConfig = InputConfig()
    """Image sizes."""
    model: ModelConfig
    """The architecture; its anchors cannot be read from tensors."""
    sampling: SamplingConfig = SamplingConfig()
    """Numbers of proposals and detections kept."""
    exif_orientation: bool = True
    """Rotate images upright, as in a recipe's ``data``."""

    @property
    def names(self) -> dict[int, str] | None:
        """Category names by id; None if they are unknown."""
        if self.categories is None:
            return None
        return {category.id: category.name for category in self.categories}

    @property
    def rules(self) -> ReadRules:
        """Rules for reading its images."""
        return DEFAULT_RULES.model_copy(update={"exif_orientation": self.exif_orientation})


def make_card(recipe: Recipe, names: Mapping[int, str] | None) -> DetectorCard:
    """Describe the detector of a run.

    Args:
        recipe: The run.
        names: Category names by id; None if they are unknown.
    """
    return DetectorCard(
        categories=None
        if names is None
        else tuple(DetectedCategory(id=number, name=names[number]) for number in sorted(names)),
        input=recipe.input,
        model=recipe.model,
        sampling=recipe.sampling,
        exif_orientation=recipe.data.exif_orientation,
    )


def parse_card(text: str, path: Path) -> DetectorCard:
    """Parse the card stored in a weights file.

    Raises:
        UserError: If it is damaged, or of another version of this toolkit.
    """
    source = f"the note {CARD_KEY} of '{path}'"
    try:
        tree = json.loads(text)
    except (ValueError, RecursionError):
        raise UserError(f"{source} is not JSON") from None
    return parse_tree(DetectorCard, tree, source)
