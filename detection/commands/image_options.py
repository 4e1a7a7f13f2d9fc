"""Define options shared by several commands: image reading and detector input."""

import argparse
from pathlib import Path
from typing import Any

from detection.job.detector_card import DetectorCard
from detection.recipe.recipe import InputConfig
from rsa_pretrain.data.read_settings import DEFAULT_RULES, ReadRules
from rsa_pretrain.plumbing.command_line import positive
from rsa_pretrain.plumbing.config.files import parse_tree


def add_rules(parser: argparse.ArgumentParser) -> None:
    """Add the options to a command."""
    parser.add_argument(
        "--max-megapixels",
        metavar="N",
        type=float,
        help="refuse larger images, like a config's data.max_megapixels (default: the "
        f"config's, or {DEFAULT_RULES.max_megapixels:g})",
    )
    parser.add_argument(
        "--as-stored",
        action="store_true",
        help="do not apply images' EXIF orientation, like data.exif_orientation=false",
    )


def chosen_rules(arguments: argparse.Namespace, rules: ReadRules = DEFAULT_RULES) -> ReadRules:
    """Return rules with the options' changes.

    Raises:
        UserError: If the limit is not a number above 0.
    """
    names = ReadRules.model_fields
    tree: dict[str, Any] = {name: getattr(rules, name) for name in names}
    if arguments.max_megapixels is not None:
        tree["max_megapixels"] = arguments.max_megapixels
    if arguments.as_stored:
        tree["exif_orientation"] = False
    return parse_tree(ReadRules, tree, "options")


def add_detector_options(parser: argparse.ArgumentParser) -> None:
    """Add the options to a command."""
    parser.add_argument(
        "--categories",
        metavar="FILE.json",
        type=Path,
        help="COCO-format file of the detector's categories, if it does not state them itself",
    )
    for option, meaning in (
        ("--short-side", "short side of the input, in pixels (default: the detector's)"),
        ("--max-side", "the long side never exceeds this (default: the detector's)"),
    ):
        parser.add_argument(option, metavar="N", type=positive, help=meaning)


def chosen_input(arguments: argparse.Namespace, card: DetectorCard) -> InputConfig:
    """Return the detector's input settings with the options' changes."""
    chosen = {
        "test_short_side_pixels": arguments.short_side,
        "max_side_pixels": arguments.max_side,
    }
    return card.input.model_copy(update={key: n for key, n in chosen.items() if n is not None})
