"""The settings of shipped detection recipes, as their records have them."""

from typing import Any

from detection.recipe.recipe import Recipe
from rsa_pretrain.plumbing.config.files import load_config, to_tree


def recipe_tree(name: str, *words: str) -> dict[str, Any]:
    """Return every setting of a recipe as plain values.

    Args:
        name: Name of a shipped config.
        words: ``key=value`` overrides.
    """
    return to_tree(load_config(Recipe, name, words))
