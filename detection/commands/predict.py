"""``rsa-detect predict``: what a trained detector finds in a set of images."""

import argparse
import json
from dataclasses import replace
from pathlib import Path

from detection.coco import CocoSet, open_coco
from detection.commands.rules_options import add_rules, chosen_rules
from detection.generated import check_generated
from detection.image_list import list_images
from detection.label_categories import categories_of
from detection.recipe import InputConfig
from rsa_pretrain.atomic_files import write_text
from rsa_pretrain.command_line import Commands, say
from rsa_pretrain.device import resolve_device
from rsa_pretrain.errors import UserError

_LIST_SUFFIX = ".images.json"
_LIST_INFO = {"info": {"description": "images of a folder, listed by rsa-detect predict"}}


def add(commands: Commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "predict",
        help="what a trained detector finds in a set of images",
        usage="rsa-detect predict [-h] [--categories FILE.json] [--short-side N] [--max-side N]\n"
        "                          [--max-megapixels N] [--as-stored]\n"
        "                          DETECTOR [ANNOTATIONS.json] IMAGES OUT.json",
        description="Run a detector of engine torchvision, or one of detectron2's that\n"
        "'convert --model' took over, on every image of an annotation file or of a folder, and\n"
        "write its detections in COCO's result format, for 'evaluate' and 'visualize': at most\n"
        "100 an image, of 1000 proposals. Annotations give image ids and categories; objects are\n"
        "not read and may be absent. A plain folder's images are numbered from 1 in the order of\n"
        f"their names, and listed in OUT{_LIST_SUFFIX}, the annotation file for 'visualize'.",
        epilog="examples:\n  rsa-detect predict runs/detection/coco instances_val2017.json val2017 "
        "found.json\n  rsa-detect predict runs/detection/coco photos/ found.json",
    )
    default = InputConfig()
    parser.add_argument("detector", metavar="DETECTOR", type=Path, help="run folder or file")
    parser.add_argument(
        "first",
        metavar="ANNOTATIONS.json",
        type=Path,
        help="COCO-format annotations, or images without; leave it out for a plain folder",
    )
    parser.add_argument("second", metavar="IMAGES", type=Path, help="folder of the images")
    # The last word, OUT.json, is read with the config overrides of other commands: argparse gives
    # an optional argument up as soon as an option follows.
    parser.set_defaults(takes_overrides=True)
    parser.add_argument(
        "--categories",
        metavar="FILE.json",
        type=Path,
        help="COCO-format file with the detector's categories, where the images come without "
        "(default: those of its run, else its labels, from 1)",
    )
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

    annotations, images, out = _paths(arguments)
    if min(arguments.short_side, arguments.max_side) < 1:
        raise UserError("--short-side and --max-side must be at least 1")
    detector, num_classes = load_detector(arguments.detector)
    if annotations is None:
        coco = _listed(arguments, images, out, num_classes)
    else:
        coco = _annotated(arguments, annotations, images, num_classes)
    settings = InputConfig(
        test_short_side_pixels=arguments.short_side, max_side_pixels=arguments.max_side
    )
    found = detect(detector.to(resolve_device("auto")), coco, settings, num_workers=0)
    write_text(out, json.dumps(found) + "\n")
    say(f"{len(found):,} detections on {len(coco.images):,} images in {out}")
    if annotations is None:
        write_text(coco.annotations_path, json.dumps(coco.tree) + "\n")
        say(f"images and categories by id in {coco.annotations_path}")
    return 0


def _paths(arguments: argparse.Namespace) -> tuple[Path | None, Path, Path]:
    """Return the annotation file, if there is one, the folder of the images and what to write."""
    words = [arguments.first, arguments.second, *map(Path, arguments.overrides)]
    if len(words) > 3:
        raise UserError(f"unrecognised argument: {' '.join(arguments.overrides[1:])}")
    if len(words) == 3:
        annotations, images, out = words
        return annotations, images, out
    images, out = words
    if not images.is_dir():
        raise UserError(
            f"'{images}' is no folder of images; expected [ANNOTATIONS.json] IMAGES OUT.json"
        )
    return None, images, out


def _annotated(
    arguments: argparse.Namespace, annotations: Path, images: Path, num_classes: int
) -> CocoSet:
    """Open a file of images, with annotations or without."""
    coco = open_coco(
        annotations,
        images,
        chosen_rules(arguments),
        images_key="IMAGES",
        needs_annotations=False,
    )
    if not coco.tree["categories"] or arguments.categories is not None:
        categories = categories_of(arguments.detector, num_classes, arguments.categories)
        return replace(coco, tree={**coco.tree, "annotations": [], "categories": categories})
    if len(coco.category_ids) != num_classes:
        raise UserError(
            f"'{arguments.detector}' knows {num_classes} categories, "
            f"'{annotations}' lists {len(coco.category_ids)}"
        )
    return coco


def _listed(arguments: argparse.Namespace, images: Path, out: Path, num_classes: int) -> CocoSet:
    """List a plain folder's images as an annotation file beside ``out`` will have them."""
    path = out.with_suffix(_LIST_SUFFIX)
    check_generated(path, json.dumps(_LIST_INFO).rstrip("}"))
    categories = categories_of(arguments.detector, num_classes, arguments.categories)
    rules = chosen_rules(arguments)
    tree = {**_LIST_INFO, "images": list_images(images, rules), "categories": categories}
    return CocoSet(path, images, tree, rules=rules)
