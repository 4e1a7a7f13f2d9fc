"""``rsa-detect convert``: hand a backbone, or a whole detector, to detectron2; or take one back."""

import argparse
from pathlib import Path

import yaml

from detection.convert import DROPPED_LEAF, Conversion, convert
from detection.exchange import Exchange, exchange
from rsa_pretrain.command_line import Commands, say


def add(commands: Commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "convert",
        help="write detectron2 weights, or read a detector from them",
        description="Write a backbone as detectron2 weights: a plain pickle of numpy arrays under\n"
        "detectron2's own names. The file is read back and compared bitwise with the checkpoint\n"
        "and, where detectron2 is installed, its ResNet is run with it. The YAML keys that belong\n"
        "to the weights are printed and written beside them as OUT.yaml.\n\n"
        "With --model the file is a whole Mask R-CNN: one of engine torchvision is written as\n"
        "detectron2's .pth or .pkl, one of detectron2 as .safetensors for that engine. Both then\n"
        "find the same boxes, classes and masks.",
        epilog="examples:\n  rsa-detect convert runs/pretrain weights/rsa_r50.pkl\n"
        "  rsa-detect convert --model runs/detection/coco weights/mask_rcnn.pth\n"
        "  rsa-detect convert --model output/model_final.pth weights/mask_rcnn.safetensors",
    )
    parser.add_argument(
        "checkpoint",
        metavar="CHECKPOINT",
        type=Path,
        help="run folder, checkpoint folder, backbone.safetensors, or another project's file",
    )
    parser.add_argument("out", metavar="OUT", type=Path, help="file to write; .pkl for a backbone")
    parser.add_argument("--model", action="store_true", help="convert a whole detector")
    parser.set_defaults(command=_convert)


def _convert(arguments: argparse.Namespace) -> int:
    if arguments.model:
        return _exchange(exchange(arguments.checkpoint, arguments.out))
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


def _exchange(done: Exchange) -> int:
    say(f"weights  {done.weights}")
    if done.config is not None:
        say(f"keys     {done.config}")
    say(f"used     {done.num_tensors} tensors, each once")
    say(f"unread   the background's rows of {', '.join(done.unread)}")
    say("proof    the file, read back, gives the detector bitwise")
    return 0


def _describe_features(done: Conversion) -> str:
    if done.feature_differences is None:
        return "detectron2 is not installed here, so its features were not compared"
    found = ", ".join(f"{name} {value:g}" for name, value in done.feature_differences.items())
    return f"detectron2's features against torchvision's, largest difference: {found}"
