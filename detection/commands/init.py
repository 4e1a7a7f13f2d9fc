"""``rsa-detect init``: write a config fitted to the user's annotated images."""

import argparse
from pathlib import Path
from typing import get_args

from detection.commands.data_words import data_of_config, refuse_unknown
from detection.commands.image_options import add_rules, chosen_rules
from detection.recipe.recipe import EngineName
from rsa_pretrain.data.read_settings import DEFAULT_RULES
from rsa_pretrain.plumbing.command_line import Commands, positive, say
from rsa_pretrain.plumbing.errors import UserError

_USUAL_SHARE = 0.2


def add(commands: Commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "init",
        description="Write a config for 'train' that is fitted to the images and objects of\n"
        "DATA.json: input size, anchors, schedule, rate and limits, each with its reason in a\n"
        "comment. Without a TEST.json, the images are split: OUT_train.json and\n"
        "OUT_test.json are written beside OUT.yaml, with every category in both if possible.\n"
        "In place of DATA.json and IMAGES, a CONFIG with the section data gives both sets; its\n"
        "other sections are not taken.\n"
        "Paths are written as given: run the next commands from the same folder.",
        epilog="examples:\n  rsa-detect init annotations.json photos/ boats.yaml\n"
        "  rsa-detect init data/voc0712 fitted.yaml\n"
        "  rsa-detect init train.json photos/ boats.yaml --test test.json --epochs 30",
    )
    _add_words(parser)
    test = parser.add_mutually_exclusive_group()
    test.add_argument(
        "--split",
        metavar="SHARE",
        type=_share,
        help=f"share of the images to test on (default {_USUAL_SHARE})",
    )
    test.add_argument(
        "--test", metavar="TEST.json", type=Path, help="annotations to test on, instead of a split"
    )
    parser.add_argument(
        "--test-images", metavar="FOLDER", type=Path, help="images of TEST.json (default: IMAGES)"
    )
    parser.add_argument(
        "--epochs",
        metavar="N",
        type=positive,
        help="passes over the training images (default: chosen by their number)",
    )
    engines = get_args(EngineName)
    parser.add_argument(
        "--engine", choices=engines, default=engines[0], help=f"(default {engines[0]})"
    )
    parser.add_argument(
        "--seed", metavar="N", type=int, default=0, help="seed of split and run (default 0)"
    )
    add_rules(parser)
    parser.set_defaults(command=_init)


def _add_words(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "data", metavar="DATA.json|CONFIG", type=Path, help="COCO-format annotations, or a config"
    )
    parser.add_argument(
        "images", metavar="IMAGES", type=Path, nargs="?", help="folder of the images of DATA.json"
    )
    parser.add_argument(
        "out",
        metavar="OUT.yaml",
        type=Path,
        nargs="?",
        help="config to write (default: named after the first word, in the current folder)",
    )


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = 0.0
    if not 0 < share < 1:
        raise argparse.ArgumentTypeError(f"expected a share above 0 and below 1, found '{text}'")
    return share


def _check_config_words(arguments: argparse.Namespace) -> None:
    """Refuse words that say again what a config says."""
    if arguments.out is not None:
        raise UserError(f"'{arguments.data}' says where its images are; expected CONFIG OUT.yaml")
    if arguments.test is not None or arguments.split is not None:
        raise UserError(f"'{arguments.data}' says what to test on; leave out --test and --split")


def _init(arguments: argparse.Namespace) -> int:
    if arguments.test_images is not None and arguments.test is None:
        raise UserError("--test-images needs --test")
    data = data_of_config(arguments.data)
    if data is None and arguments.images is None:
        refuse_unknown(arguments.data)
        raise UserError(f"'{arguments.data}' needs the folder of its images as the second word")
    if data is not None:
        _check_config_words(arguments)
    images, out = (arguments.images, arguments.out) if data is None else (Path(), arguments.images)
    from detection.survey.fitted_run import InitRequest, write_fitted_run

    run = write_fitted_run(
        InitRequest(
            annotations=arguments.data,
            images_dir=images,
            out=out or Path(f"{arguments.data.stem}.yaml"),
            test_share=arguments.split or _USUAL_SHARE,
            test_annotations=arguments.test,
            test_images_dir=arguments.test_images or images,
            epochs=arguments.epochs,
            engine=arguments.engine,
            seed=arguments.seed,
            rules=chosen_rules(arguments, data or DEFAULT_RULES),
            data=data,
        )
    )
    say(run.summary)
    for note in run.notes:
        say(f"note     {note}")
    for path in run.written:
        say(f"written  {path}")
    say("next:")
    for command in run.next_commands:
        say(f"  {command}")
    return 0
