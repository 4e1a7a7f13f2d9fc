"""``rsa-detect import-annotations``: convert other tools' annotations to one COCO-format file."""

import argparse
from pathlib import Path

from detection.commands.image_options import add_rules, chosen_rules
from rsa_pretrain.plumbing.command_line import Commands, say


def add(commands: Commands) -> None:
    """Add the command to the parser."""
    from detection.coco.importers.tools import TOOLS

    parser = commands.add_parser(
        "import-annotations",
        description="Read the annotation files below SOURCE and write one COCO-format file. What\n"
        "cannot be carried over is named and counted: points and lines, flags, attributes, key\n"
        "points. A faulty file or a missing image stops the import; nothing is written then.\n\n"
        "LabelMe   *.json beside the images. Outlines, circles (as polygons) and masks become\n"
        "          masks, shapes of one group one object, rectangles boxes without a mask.\n"
        "VOC       Annotations/*.xml and JPEGImages/. Boxes count pixels from 1, the last one\n"
        "          included; outlines in <polygon> are kept.\n"
        "YOLO      labels/*.txt and images/; names from data.yaml, classes.txt or obj.names.\n"
        "          Boxes and outlines; an image without a file has no objects.",
        epilog="examples:\n"
        "  rsa-detect import-annotations photos/ train.json\n"
        "  rsa-detect import-annotations VOC2012/ voc.json --from voc\n"
        "  rsa-detect import-annotations set/labels/train train.json --images set/images/train",
    )
    parser.add_argument("source", metavar="SOURCE", type=Path, help="folder of annotation files")
    parser.add_argument("out", metavar="OUT.json", type=Path, help="COCO-format file to write")
    parser.add_argument(
        "--from",
        dest="tool",
        choices=tuple(TOOLS),
        help="the tool; needed if the folder contains files of several",
    )
    parser.add_argument(
        "--images",
        metavar="FOLDER",
        type=Path,
        help="folder of the images; OUT names files relative to it (default: the tool's, as above)",
    )
    parser.add_argument(
        "--classes",
        metavar="FILE",
        type=Path,
        help="class names in order of their numbers: a text file with one per line, YOLO's YAML, "
        "or an earlier OUT.json, to number a second set like the first (default: YOLO's own, "
        "others' sorted by name)",
    )
    add_rules(parser)
    parser.set_defaults(command=_import)


def _import(arguments: argparse.Namespace) -> int:
    from detection.coco.importers.import_annotations import ImportConfig, import_annotations
    from rsa_pretrain.plumbing.name_lists import first_of

    config = ImportConfig(
        arguments.source,
        arguments.tool,
        arguments.images,
        arguments.classes,
        chosen_rules(arguments),
    )
    tree, images_dir = import_annotations(config, arguments.out)
    annotations = tree["annotations"]
    empty = len(tree["images"]) - len({entry["image_id"] for entry in annotations})
    masks = sum("segmentation" in entry for entry in annotations)
    names = [entry["name"] for entry in tree["categories"]]
    say(f"images       {len(tree['images']):,} in '{images_dir}', {empty:,} without objects")
    say(f"objects      {len(annotations):,}, {masks:,} with a mask")
    say(f"categories   {len(names):,}: {first_of(names, limit=10)}")
    say(f"written      {arguments.out}")
    return 0
