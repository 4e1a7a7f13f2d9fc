"""``rsa-pretrain preview``: draw the views of some training images."""

import argparse
from pathlib import Path

from rsa_pretrain.config import PretrainConfig
from rsa_pretrain.plumbing.command_line import Commands, add_overrides, positive, say
from rsa_pretrain.plumbing.config.files import load_config
from rsa_pretrain.plumbing.errors import UserError


def add(commands: Commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "preview",
        description="Draw training images beside the views that the run's method sees.",
    )
    parser.add_argument("config", metavar="CONFIG", type=Path, help="file or name of a config")
    parser.add_argument("out", metavar="OUT.png", type=Path, help="picture to write")
    parser.add_argument(
        "--num-images", metavar="N", type=positive, default=8, help="rows (default 8)"
    )
    add_overrides(parser, PretrainConfig)
    parser.set_defaults(command=_preview)


def _preview(arguments: argparse.Namespace) -> int:
    if arguments.out.suffix.lower() != ".png":
        raise UserError(f"'{arguments.out}' should end in .png")
    config = load_config(PretrainConfig, arguments.config, arguments.overrides)
    from rsa_pretrain.data.open_images import open_images
    from rsa_pretrain.data.sets.folders import refuse_among_images
    from rsa_pretrain.training.preview import draw_preview

    refuse_among_images(config.data, arguments.out)
    images = open_images(config.data, "train")
    draw_preview(config, images, arguments.out, arguments.num_images)
    say(f"views: {arguments.out}")
    return 0
