"""What a trained detector's weights do not tell: its classes, its input, its anchors and limits."""

import json
from collections.abc import Mapping
from pathlib import Path

from detection.recipe import InputConfig, ModelConfig, Recipe, SamplingConfig
from rsa_pretrain.data.read_rules import DEFAULT_RULES, ReadRules
from rsa_pretrain.plumbing.config.files import Section, parse_tree
from rsa_pretrain.plumbing.errors import UserError

CARD_KEY = "rsa_detector"
"""The card's place in a file of weights."""


class DetectedCategory(Section):
    """A class that a detector knows."""

    id: int
    """In the annotations that it was trained on."""
    name: str
    """Likewise."""


class DetectorCard(Section):
    """What must go with a detector's weights for it to find what it found in its run."""

    categories: tuple[DetectedCategory, ...] | None = None
    """The classes of label 1, 2, …, by rising id; null where they are not known."""
    input: InputConfig = InputConfig()
    """How images enter."""
    model: ModelConfig
    """The architecture; its anchors are what no tensor tells."""
    sampling: SamplingConfig = SamplingConfig()
    """How many proposals and detections are kept."""
    exif_orientation: bool = True
    """Whether images are turned upright, as in a recipe's ``data``."""

    @property
    def names(self) -> dict[int, str] | None:
        """The name of each category id; None where they are not known."""
        if self.categories is None:
            return None
        return {category.id: category.name for category in self.categories}

    @property
    def rules(self) -> ReadRules:
        """How its images are read."""
        return DEFAULT_RULES.model_copy(update={"exif_orientation": self.exif_orientation})


def make_card(recipe: Recipe, names: Mapping[int, str] | None) -> DetectorCard:
    """Describe the detector of a run.

    Args:
        recipe: The run.
        names: Of each category id; None where they are not known.
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
    """Read a card out of a file of weights.

    Raises:
        UserError: If it is damaged, or of another version of this toolkit.
    """
    source = f"the note {CARD_KEY} of '{path}'"
    try:
        tree = json.loads(text)
    except (ValueError, RecursionError):
        raise UserError(f"{source} is not JSON") from None
    return parse_tree(DetectorCard, tree, source)
