"""Options that replace what a detector's file says of its classes and its input."""

import argparse
from pathlib import Path

from detection.card import DetectorCard
from detection.recipe import InputConfig
from rsa_pretrain.command_line import positive


def add_detector_options(parser: argparse.ArgumentParser) -> None:
    """Add the options to a command."""
    parser.add_argument(
        "--categories",
        metavar="FILE.json",
        type=Path,
        help="COCO-format file with the detector's categories, for one that does not keep them",
    )
    for option, meaning in (
        ("--short-side", "short side of the input, in pixels (default: the detector's)"),
        ("--max-side", "the long side never exceeds this (default: the detector's)"),
    ):
        parser.add_argument(option, metavar="N", type=positive, help=meaning)


def chosen_input(arguments: argparse.Namespace, card: DetectorCard) -> InputConfig:
    """Return how images enter the detector, with what the options change."""
    chosen = {
        "test_short_side_pixels": arguments.short_side,
        "max_side_pixels": arguments.max_side,
    }
    return card.input.model_copy(update={key: n for key, n in chosen.items() if n is not None})
