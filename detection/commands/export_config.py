"""``rsa-detect export-config``: write a recipe for detectron2's own programs."""

import argparse
from pathlib import Path

from detection.recipe.recipe import Recipe
from rsa_pretrain.plumbing.command_line import Commands, add_overrides, checkpoint_place, say
from rsa_pretrain.plumbing.config.files import load_config


def add(commands: Commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "export-config",
        description="Write CONFIG as the plain YAML that detectron2's own programs read, so that\n"
        "they train the same model from the same weights, which are written beside it as OUT.pkl.\n"
        "The file's first lines explain how to run it and how to register the images. The\n"
        "training annotations are read for their categories.",
        epilog="example:\n"
        "  rsa-detect export-config mask_rcnn_R_50_FPN_1x rsa_1x.yaml \\\n"
        "    --checkpoint runs/pretrain",
    )
    parser.add_argument("config", metavar="CONFIG", type=Path, help="file or name of a config")
    parser.add_argument("out", metavar="OUT.yaml", type=Path, help="detectron2's config to write")
    parser.add_argument(
        "--checkpoint",
        metavar="CHECKPOINT",
        type=checkpoint_place,
        help="pretrained backbone to start from (default: random weights)",
    )
    add_overrides(parser, Recipe)
    parser.set_defaults(command=_export)


def _export(arguments: argparse.Namespace) -> int:
    recipe = load_config(Recipe, arguments.config, arguments.overrides)
    from detection.exchange.export_config import export_config

    weights = export_config(recipe, arguments.out, arguments.checkpoint)
    say(f"config   {arguments.out}")
    if weights is not None:
        say(f"weights  {weights}")
    return 0
