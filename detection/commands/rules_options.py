"""Options that say how images are read, for commands that may have no config."""

import argparse
from typing import Any

from rsa_pretrain.config_files import parse_tree
from rsa_pretrain.read_rules import DEFAULT_RULES, ReadRules


def add_rules(parser: argparse.ArgumentParser) -> None:
    """Add the options to a command."""
    parser.add_argument(
        "--max-megapixels",
        metavar="N",
        type=float,
        help="refuse larger images, as data.max_megapixels of a config does (default: the "
        f"config's, or {DEFAULT_RULES.max_megapixels:g})",
    )
    parser.add_argument(
        "--as-stored",
        action="store_true",
        help="do not turn images as their EXIF orientation says, as data.exif_orientation=false",
    )


def chosen_rules(arguments: argparse.Namespace, rules: ReadRules = DEFAULT_RULES) -> ReadRules:
    """Return rules with what the options change.

    Raises:
        UserError: If the limit is no number above 0.
    """
    names = ReadRules.model_fields
    tree: dict[str, Any] = {name: getattr(rules, name) for name in names}
    if arguments.max_megapixels is not None:
        tree["max_megapixels"] = arguments.max_megapixels
    if arguments.as_stored:
        tree["exif_orientation"] = False
    return parse_tree(ReadRules, tree, "options")
