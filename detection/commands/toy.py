"""``rsa-detect toy``: draw a small data set of shapes."""

import argparse
from pathlib import Path

from rsa_pretrain.plumbing.command_line import Commands, say


def add(commands: Commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "toy",
        description="Draw circles, rectangles and triangles with their outlines as a COCO-format\n"
        "set: annotations/instances_{train,val}.json, train/ and val/, determined by the seed.",
    )
    parser.add_argument("out", metavar="OUT", type=Path, help="new or empty folder")
    for option, default, meaning in (
        ("--num-train", 60, "training images"),
        ("--num-test", 20, "test images"),
        ("--image-size", 128, "side of the images, in pixels"),
        ("--seed", 0, "seed of the drawings"),
    ):
        help_text = f"{meaning} (default {default})"
        parser.add_argument(option, metavar="N", type=int, default=default, help=help_text)
    parser.set_defaults(command=_toy)


def _toy(arguments: argparse.Namespace) -> int:
    from detection.coco.shapes import ShapesConfig, write_shapes

    config = ShapesConfig(
        num_train=arguments.num_train,
        num_test=arguments.num_test,
        image_size=arguments.image_size,
        seed=arguments.seed,
    )
    write_shapes(arguments.out, config)
    say(f"{config.num_train} training and {config.num_test} test images in {arguments.out}")
    return 0
