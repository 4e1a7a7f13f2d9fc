"""The command ``rsa-detect``."""

import argparse
import sys
from pathlib import Path

import yaml

from detection.convert import DROPPED_LEAF, Conversion, convert
from detection.recipe import Recipe
from detection.run import PREDICTIONS_FILE, RECORD_FILE, run_recipe
from detection.shapes import ShapesConfig, write_shapes
from detection.trunk import load_trunk, random_trunk
from rsa_eval.record import Record
from rsa_pretrain.command_line import Parser, add_overrides, run_command, say
from rsa_pretrain.config_files import load_config

DESCRIPTION = """\
Transfer of a pretrained backbone to Mask R-CNN on COCO-format data.

  convert   write detectron2 weights, proved against the checkpoint
  train     fine-tune and evaluate Mask R-CNN with torchvision
  toy       draw a small data set of shapes to try it on
"""


def main(argv: list[str] | None = None) -> int:
    """Run ``rsa-detect`` and return its exit code."""
    return run_command(lambda: _dispatch(sys.argv[1:] if argv is None else argv))


def _dispatch(argv: list[str]) -> int:
    parser = Parser(prog="rsa-detect", description=DESCRIPTION)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_convert(commands)
    _add_train(commands)
    _add_toy(commands)
    arguments = parser.parse_args(argv)
    return int(arguments.command(arguments))


def _add_convert(commands: "argparse._SubParsersAction[Parser]") -> None:
    parser = commands.add_parser(
        "convert",
        help="write detectron2 weights",
        description="Write a backbone as detectron2 weights: a plain pickle of numpy arrays under\n"
        "detectron2's own names. The file is read back and compared bitwise with the checkpoint\n"
        "and, where detectron2 is installed, its ResNet is run with it. The YAML keys that belong\n"
        "to the weights are printed and written beside them as OUT.yaml.",
        epilog="example:\n  rsa-detect convert runs/pretrain weights/rsa_r50.pkl",
    )
    parser.add_argument(
        "checkpoint",
        metavar="CHECKPOINT",
        type=Path,
        help="run folder, checkpoint folder, backbone.safetensors, or another project's file",
    )
    parser.add_argument("out", metavar="OUT.pkl", type=Path, help="weights file to write")
    parser.set_defaults(command=_convert)


def _add_train(commands: "argparse._SubParsersAction[Parser]") -> None:
    parser = commands.add_parser(
        "train",
        help="fine-tune and evaluate Mask R-CNN",
        description="Train Mask R-CNN as CONFIG says, then evaluate boxes and masks.\n"
        f"The run folder (output_dir) receives {RECORD_FILE} and {PREDICTIONS_FILE}; its\n"
        "checkpoints/last is the trained detector. SIGTERM and Ctrl-C save a checkpoint first.",
    )
    parser.add_argument("config", metavar="CONFIG.yaml", type=Path, help="the recipe")
    trunk = parser.add_mutually_exclusive_group(required=True)
    trunk.add_argument(
        "--checkpoint", metavar="CHECKPOINT", type=Path, help="pretrained backbone to start from"
    )
    trunk.add_argument(
        "--random-init", action="store_true", help="start from random weights: the baseline"
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="continue the run in output_dir where it stopped; start anew if there is none",
    )
    add_overrides(parser, Recipe)
    parser.set_defaults(command=_train)


def _add_toy(commands: "argparse._SubParsersAction[Parser]") -> None:
    parser = commands.add_parser(
        "toy",
        help="draw a small COCO-format data set of shapes",
        description="Draw circles, rectangles and triangles with their outlines as a COCO-format\n"
        "set: annotations/instances_{train,val}.json, train/ and val/. The seed decides all of it.",
    )
    parser.add_argument("out", metavar="OUT", type=Path, help="new or empty folder")
    for option, default, meaning in (
        ("--num-train", 60, "training images"),
        ("--num-test", 20, "test images"),
        ("--image-size", 128, "side of the images, in pixels"),
        ("--seed", 0, "what is drawn"),
    ):
        help_text = f"{meaning} (default {default})"
        parser.add_argument(option, metavar="N", type=int, default=default, help=help_text)
    parser.set_defaults(command=_toy)


def _convert(arguments: argparse.Namespace) -> int:
    done = convert(arguments.checkpoint, arguments.out)
    say(f"weights  {done.weights}")
    say(f"keys     {done.config}")
    say(f"used     {done.num_used} tensors, each once")
    say(f"dropped  {len(done.dropped)} tensors, all '{DROPPED_LEAF}'")
    say(f"proof    names and shapes are those {done.shapes_source}")
    say("proof    the file, read back, gives the checkpoint bitwise")
    say(f"proof    {_describe_features(done)}")
    say("with these keys, and no others in their place:")
    say(yaml.safe_dump(done.config_tree, sort_keys=False).rstrip())
    return 0


def _describe_features(done: Conversion) -> str:
    if done.feature_differences is None:
        return "detectron2 is not installed here, so its features were not compared"
    found = ", ".join(f"{name} {value:g}" for name, value in done.feature_differences.items())
    return f"detectron2's features against torchvision's, largest difference: {found}"


def _train(arguments: argparse.Namespace) -> int:
    recipe = load_config(Recipe, arguments.config, arguments.overrides)
    if arguments.random_init:
        trunk = random_trunk(recipe.model, recipe.seed)
    else:
        trunk = load_trunk(arguments.checkpoint, recipe.model)
    exit_code, record = run_recipe(recipe, trunk, resume=arguments.resume)
    if record is None:
        say(f"stopped by a signal; continue with --resume ({recipe.output_dir})")
    else:
        _report(record, recipe.output_dir)
    return exit_code


def _report(record: Record, run_dir: Path) -> None:
    for kind in ("bbox", "segm"):
        values = [
            f"{name.removeprefix(f'{kind}_')} {metric.value:.1f}"
            for name, metric in record.metrics.items()
            if name.startswith(kind)
        ]
        say(f"{kind}  " + "  ".join(values))
    say(f"record  {run_dir / RECORD_FILE}")


def _toy(arguments: argparse.Namespace) -> int:
    config = ShapesConfig(
        num_train=arguments.num_train,
        num_test=arguments.num_test,
        image_size=arguments.image_size,
        seed=arguments.seed,
    )
    write_shapes(arguments.out, config)
    say(f"{config.num_train} training and {config.num_test} test images in {arguments.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
