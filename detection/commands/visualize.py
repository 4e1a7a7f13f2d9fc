"""``rsa-detect visualize``: draw predictions beside annotations, on one page."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from detection.commands.data_words import data_of_config, refuse_unknown
from detection.commands.image_options import add_rules, chosen_rules
from detection.recipe.recipe import PREDICTIONS_FILE, Recipe
from rsa_pretrain.config import CONFIG_FILE
from rsa_pretrain.plumbing.command_line import Commands, positive, say
from rsa_pretrain.plumbing.config.files import load_config
from rsa_pretrain.plumbing.errors import UserError

if TYPE_CHECKING:
    from detection.coco.sets import CocoSet


def add(commands: Commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "visualize",
        description="Draw masks, boxes, category names and scores on test images, beside the\n"
        "annotations, as one self-contained HTML page. Its slider sets the score threshold.",
        epilog="examples:\n"
        "  rsa-detect visualize runs/detection/toy_shapes found.html\n"
        "  rsa-detect visualize predictions.json found.html --images val2017 \\\n"
        "      --annotations instances_val2017.json",
    )
    parser.add_argument(
        "source",
        metavar="RUN|PREDICTIONS.json",
        type=Path,
        help=f"a finished run, or predictions of any detector like its {PREDICTIONS_FILE}",
    )
    parser.add_argument("out", metavar="PAGE.html", type=Path, help="page to write")
    parser.add_argument(
        "--annotations",
        metavar="FILE",
        type=Path,
        help="annotations, a list of images without them, or a config (default: the run's)",
    )
    parser.add_argument(
        "--images", metavar="FOLDER", type=Path, help="the images' folder (default: the run's)"
    )
    parser.add_argument(
        "--min-score",
        metavar="S",
        type=_share,
        default=0.5,
        help="initial score threshold (default 0.5)",
    )
    parser.add_argument("--num-images", metavar="N", type=positive, default=20, help="(default 20)")
    add_rules(parser)
    parser.set_defaults(command=_visualize)


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to 1, found '{text}'")
    return value


def _visualize(arguments: argparse.Namespace) -> int:
    from detection.coco.results import read_predictions
    from detection.pictures.predictions import write_predictions

    predictions_path, coco = _open(arguments)
    predictions = read_predictions(predictions_path, coco.tree)
    write_predictions(
        arguments.out,
        str(arguments.source),
        coco,
        predictions,
        num_images=arguments.num_images,
        min_score=arguments.min_score,
    )
    say(f"page: {arguments.out}")
    return 0


def _open(arguments: argparse.Namespace) -> "tuple[Path, CocoSet]":
    source, annotations, images = arguments.source, arguments.annotations, arguments.images
    data = None if annotations is None else data_of_config(annotations)
    if data is not None:
        annotations = None  # the config says where they are
    if source.is_dir():
        if not (source / PREDICTIONS_FILE).is_file():
            raise UserError(f"'{source}' is not a finished run: it has no {PREDICTIONS_FILE}")
        data = data or load_config(Recipe, source / CONFIG_FILE).data
        source = source / PREDICTIONS_FILE
    elif data is None and (annotations is None or images is None):
        if annotations is not None:
            refuse_unknown(annotations)
            raise UserError(f"'{annotations}' needs the folder of its images: give --images")
        raise UserError(f"'{source}' is not a run folder; give --annotations and --images")
    rules = chosen_rules(arguments) if data is None else chosen_rules(arguments, data)
    if data is not None:
        from detection.coco.opening import open_set, places_of

        if data.format == "voc" and annotations is None:
            moved = data if images is None else data.model_copy(update={"root": images})
            return source, open_set(moved, "test", rules)
        places = places_of(data, "test")
        annotations, images = annotations or places[0], images or places[1]
    from detection.coco.sets import open_coco

    coco = open_coco(annotations, images, rules, images_key="--images", needs_annotations=False)
    if not coco.tree["categories"]:
        raise UserError(f"'{annotations}' lists no categories, which the predictions' names need")
    return source, coco
