"""``rsa-detect predict``: what a trained detector finds in a set of images."""

import argparse
import json
from pathlib import Path

from detection.coco import open_coco
from detection.commands.rules_options import add_rules, chosen_rules
from detection.recipe import InputConfig
from rsa_pretrain.atomic_files import write_text
from rsa_pretrain.command_line import Commands, say
from rsa_pretrain.device import resolve_device
from rsa_pretrain.errors import UserError


def add(commands: Commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "predict",
        help="what a trained detector finds in a set of images",
        description="Run a detector of engine torchvision, or one of detectron2's that\n"
        "'convert --model' took over, on every image of an annotation file, and write its\n"
        "detections in COCO's result format, for 'evaluate': at most 100 an image, of 1000\n"
        "proposals. The annotations give image ids and categories; objects are not read.",
        epilog="example:\n  rsa-detect predict runs/detection/coco instances_val2017.json val2017 "
        "found.json",
    )
    default = InputConfig()
    parser.add_argument("detector", metavar="DETECTOR", type=Path, help="run folder or file")
    parser.add_argument(
        "annotations", metavar="ANNOTATIONS.json", type=Path, help="COCO-format annotations"
    )
    parser.add_argument("images", metavar="IMAGES", type=Path, help="folder of the images")
    parser.add_argument("out", metavar="OUT.json", type=Path, help="predictions to write")
    for option, value, meaning in (
        ("--short-side", default.test_short_side_pixels, "short side of the input, in pixels"),
        ("--max-side", default.max_side_pixels, "the long side never exceeds this"),
    ):
        help_text = f"{meaning} (default {value})"
        parser.add_argument(option, metavar="N", type=int, default=value, help=help_text)
    add_rules(parser)
    parser.set_defaults(command=_predict)


def _predict(arguments: argparse.Namespace) -> int:
    # Imported here: the other commands do without torchvision's detectors.
    from detection.engines.torchvision.loading import load_detector
    from detection.engines.torchvision.prediction import detect

    if min(arguments.short_side, arguments.max_side) < 1:
        raise UserError("--short-side and --max-side must be at least 1")
    detector, num_classes = load_detector(arguments.detector)
    coco = open_coco(arguments.annotations, arguments.images, chosen_rules(arguments))
    if len(coco.category_ids) != num_classes:
        raise UserError(
            f"'{arguments.detector}' knows {num_classes} categories, "
            f"'{arguments.annotations}' lists {len(coco.category_ids)}"
        )
    settings = InputConfig(
        test_short_side_pixels=arguments.short_side, max_side_pixels=arguments.max_side
    )
    found = detect(detector.to(resolve_device("auto")), coco, settings, num_workers=0)
    write_text(arguments.out, json.dumps(found) + "\n")
    say(f"{len(found):,} detections on {len(coco.images):,} images in {arguments.out}")
    return 0
