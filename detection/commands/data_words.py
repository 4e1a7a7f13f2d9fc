"""Read the section ``data`` of a config that stands in place of an annotation file."""

from pathlib import Path

from detection.coco.data_settings import DetectionData
from detection.recipe.recipe import Recipe
from rsa_pretrain.plumbing.config.files import load_config
from rsa_pretrain.plumbing.config.shipped import find_config, shipped_configs

START = {"name": "data"}
"""Makes a recipe of a config that has only the section ``data``."""


def data_of_config(word: Path) -> DetectionData | None:
    """Return the section ``data`` of a config; None if the word is another file or folder.

    Args:
        word: A recipe's or a data set's YAML file, or the name of a shipped one, also where a
            folder has that name.

    Raises:
        UserError: If the config is not one of detection.
    """
    is_shipped = not word.is_file() and word.as_posix() in shipped_configs()
    if word.suffix.lower() not in (".yaml", ".yml") and not is_shipped:
        return None
    return load_config(Recipe, word, start=START).data


def refuse_unknown(word: Path) -> None:
    """Refuse a word without suffix that is neither there nor the name of a shipped config.

    Raises:
        UserError: If it is such a word; the nearest names are listed.
    """
    if not word.suffix and not word.exists():
        find_config(word)
