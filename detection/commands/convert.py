"""``rsa-detect convert``: hand a backbone to detectron2."""

import argparse
from pathlib import Path

import yaml

from detection.convert import DROPPED_LEAF, Conversion, convert
from rsa_pretrain.command_line import Commands, say


def add(commands: Commands) -> None:
    """Add the command to the parser."""
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
