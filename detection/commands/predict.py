"""``rsa-detect predict``: run a trained detector on images."""

import argparse
import glob
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from detection.commands.data_words import data_of_config
from detection.commands.image_options import (
    add_detector_options,
    add_rules,
    chosen_input,
    chosen_rules,
)
from detection.job.detector_card import DetectorCard
from detection.pictures.page import PAGE_MARK
from rsa_pretrain.plumbing.atomic_files import write_text
from rsa_pretrain.plumbing.command_line import Commands, positive, say, whole_number
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.generated_files import check_generated, check_marked
from rsa_pretrain.plumbing.user_paths import real_path

if TYPE_CHECKING:
    from detection.coco.data_settings import DetectionData
    from detection.coco.sets import CocoSet

_LIST_SUFFIX, _PAGE_SUFFIX = ".images.json", ".html"
_LIST_INFO = {"info": {"description": "images listed by rsa-detect predict"}}
# A JSON list, unlike annotations, which are easily passed as OUT.json by mistake.
_PREDICTIONS = "["
_EXPECTED = "expected DETECTOR IMAGES OUT.json"
_MOST_PICTURES = 200
_MIN_SCORE = 0.5
_BATCH_ON_GPU = 8
_MOST_WORKERS = 4


def add(commands: Commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "predict",
        usage="rsa-detect predict [-h] [--pictures] [--categories FILE.json] [--short-side N]\n"
        "                          [--max-side N] [--batch-size N] [--num-workers N]\n"
        "                          [--max-megapixels N] [--as-stored]\n"
        "                          DETECTOR IMAGES... OUT.json",
        description="Run a detector of either engine, or of detectron2's own programs, and write\n"
        "its detections in COCO's result format, for 'evaluate' and 'visualize'. Classes, input\n"
        "size and the numbers of proposals and detections are the detector's.\n\n"
        "IMAGES is a folder, image files, patterns like 'photos/*.jpg', a config, whose test\n"
        "images are taken, or a COCO-format file, followed by its images' folder if that is a\n"
        "different one. Images not listed in a file are numbered from 1 and listed in\n"
        f"OUT{_LIST_SUFFIX}, the annotation file for 'visualize'. The annotations of a\n"
        "COCO-format file are ignored and may be absent.",
        epilog="examples:\n  rsa-detect predict runs/detection/coco photos/ found.json --pictures\n"
        "  rsa-detect predict runs/detection/coco IMG_0001.jpg IMG_0002.jpg found.json\n"
        "  rsa-detect predict runs/detection/coco instances_val2017.json val2017 found.json",
    )
    parser.add_argument("detector", metavar="DETECTOR", type=Path, help="run folder or file")
    parser.add_argument("words", metavar="IMAGES... OUT.json", nargs="+", type=Path)
    # Words after an option are parsed like other commands' config overrides.
    parser.set_defaults(takes_overrides=True)
    parser.add_argument(
        "--pictures",
        action="store_true",
        help=f"draw detections on OUT{_PAGE_SUFFIX}, on at most {_MOST_PICTURES} images",
    )
    add_detector_options(parser)
    parser.add_argument(
        "--batch-size",
        metavar="N",
        type=positive,
        help=f"images of one size per batch (default: {_BATCH_ON_GPU} on a GPU; else 1,\n"
        "which repeats a run's detections to the last bit)",
    )
    parser.add_argument(
        "--num-workers",
        metavar="N",
        type=whole_number,
        help="processes that read images; 0 reads in the main one (default: 4, or the number of\n"
        "cores)",
    )
    add_rules(parser)
    parser.set_defaults(command=_predict)


def _predict(arguments: argparse.Namespace) -> int:
    sources, out = _sources_and_out(arguments)
    from detection.engines.torchvision.detector import place
    from detection.engines.torchvision.loading import load_detector
    from detection.engines.torchvision.prediction import detect
    from detection.pictures.predictions import write_predictions
    from rsa_pretrain.plumbing.device import resolve_device, usable_cores

    detector, card, _, _, num_classes = load_detector(arguments.detector)
    data = data_of_config(sources[0])
    if data is not None:
        coco = _of_config(arguments, sources, data, card, num_classes)
    elif sources[0].suffix.lower() == ".json":
        coco = _annotated(arguments, sources, card, num_classes)
    else:
        coco = _listed(arguments, sources, out, card, num_classes)
    device = resolve_device("auto")
    batch_size = arguments.batch_size or (_BATCH_ON_GPU if device.type == "cuda" else 1)
    num_workers = arguments.num_workers
    if num_workers is None:
        num_workers = min(_MOST_WORKERS, usable_cores())
    found = detect(
        place(detector, device),
        coco,
        chosen_input(arguments, card),
        num_workers=min(num_workers, len(coco.images) // (2 * batch_size)),
        batch_size=batch_size,
    )
    write_text(out, json.dumps(found) + "\n")
    say(f"{len(found):,} detections on {len(coco.images):,} images in {out}")
    if coco.annotations_path == out.with_suffix(_LIST_SUFFIX):
        # Without a list of annotations: an empty one would state that there are no objects.
        tree = {key: value for key, value in coco.tree.items() if key != "annotations"}
        write_text(coco.annotations_path, json.dumps(tree) + "\n")
        say(f"images and categories by id in {coco.annotations_path}")
    if arguments.pictures:
        page = out.with_suffix(_PAGE_SUFFIX)
        title = f"{arguments.detector} on {sources[0]}"
        write_predictions(page, title, coco, found, num_images=_MOST_PICTURES, min_score=_MIN_SCORE)
        say(f"pictures in {page}")
    return 0


def _sources_and_out(arguments: argparse.Namespace) -> tuple[list[Path], Path]:
    """Separate the images from the file to write, which is the last word."""
    words = [*arguments.words, *map(Path, arguments.overrides)]
    *sources, out = words
    # Otherwise a list of images without OUT would overwrite the last image.
    if not sources or out.suffix.lower() != ".json":
        raise UserError(f"'{out}' is not an OUT.json; {_EXPECTED}")
    if real_path(out) in [real_path(source) for source in sources]:
        raise UserError(f"'{out}' is an input and would be overwritten; name another OUT.json")
    check_generated(out, _PREDICTIONS)
    if arguments.pictures:
        check_marked(out.with_suffix(_PAGE_SUFFIX), PAGE_MARK)
    return sources, out


def _of_config(
    arguments: argparse.Namespace,
    sources: list[Path],
    data: "DetectionData",
    card: DetectorCard,
    num_classes: int,
) -> "CocoSet":
    """Open the test images of a config."""
    from detection.coco.opening import open_set

    if len(sources) > 1:
        raise UserError(f"'{sources[0]}' says where its images are; expected no other")
    coco = open_set(data, "test", chosen_rules(arguments, card.rules))
    return _with_categories(arguments, coco, data.source_of("test"), card, num_classes)


def _annotated(
    arguments: argparse.Namespace, sources: list[Path], card: DetectorCard, num_classes: int
) -> "CocoSet":
    """Open a file of images, with annotations or without."""
    from detection.coco.sets import open_coco

    annotations, *folders = sources
    if len(folders) > 1:
        raise UserError(
            f"'{annotations}' is followed by {len(folders)} paths; expected its images' folder"
        )
    coco = open_coco(
        annotations,
        folders[0] if folders else annotations.parent,
        chosen_rules(arguments, card.rules),
        images_key="IMAGES",
        needs_annotations=False,
    )
    return _with_categories(arguments, coco, f"'{annotations}'", card, num_classes)


def _with_categories(
    arguments: argparse.Namespace,
    coco: "CocoSet",
    source: str,
    card: DetectorCard,
    num_classes: int,
) -> "CocoSet":
    """Check that a set's categories are the detector's; take those where the set has none."""
    from detection.coco.categories import categories_of, check_number, check_same_categories

    if not coco.tree["categories"] or arguments.categories is not None:
        categories = categories_of(
            arguments.detector, num_classes, card.names, arguments.categories
        )
        return replace(coco, tree={**coco.tree, "annotations": [], "categories": categories})
    if card.names is not None:
        detector = f"detector '{arguments.detector}'"
        check_same_categories(card.names, coco.category_names, detector, source)
    else:
        check_number(arguments.detector, num_classes, len(coco.category_ids), coco.annotations_path)
    return coco


def _listed(
    arguments: argparse.Namespace,
    sources: list[Path],
    out: Path,
    card: DetectorCard,
    num_classes: int,
) -> "CocoSet":
    """List a folder's images, or the given files, as in the file written beside ``out``."""
    from detection.coco.categories import categories_of
    from detection.coco.image_list import list_files, list_images
    from detection.coco.sets import CocoSet

    path = out.with_suffix(_LIST_SUFFIX)
    check_generated(path, json.dumps(_LIST_INFO).rstrip("}"))
    categories = categories_of(arguments.detector, num_classes, card.names, arguments.categories)
    rules = chosen_rules(arguments, card.rules)
    images: list[dict[str, Any]]
    if len(sources) == 1 and sources[0].is_dir():
        folder, images = sources[0], list_images(sources[0], rules)
    else:
        folder, images = Path(), list_files(_expanded(sources), rules)
    tree = {**_LIST_INFO, "images": images, "annotations": [], "categories": categories}
    return CocoSet(path, folder, tree, is_annotated=False, rules=rules)


def _expanded(sources: list[Path]) -> list[Path]:
    """Expand paths and patterns to files."""
    files: list[Path] = []
    for source in sources:
        if source.is_dir():
            raise UserError(f"'{source}' is a folder; expected a single folder, or image files")
        found = [source] if source.exists() else sorted(glob.glob(str(source), recursive=True))
        if not found:
            raise UserError(f"'{source}' does not exist; {_EXPECTED}")
        files += map(Path, found)
    return files
