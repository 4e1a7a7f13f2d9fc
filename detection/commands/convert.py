"""``rsa-detect convert``: convert a backbone or detector to detectron2, or a detector back."""

import argparse
from pathlib import Path
from typing import get_args

import yaml

from detection.recipe.architecture import RegionMaps
from rsa_pretrain.plumbing.command_line import Commands, checkpoint_place, say
from rsa_pretrain.plumbing.user_paths import refuse_input


def add(commands: Commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "convert",
        description="Write a backbone as detectron2 weights under its full names: a plain\n"
        "pickle of numpy arrays (.pkl), or torch's format (.pth). The file is read back and\n"
        "compared bitwise with the checkpoint and, where detectron2 is installed, its ResNet is\n"
        "run with it. The YAML keys that belong to the weights are printed and written beside\n"
        "them as OUT.yaml. To convert back, use rsa-detect unconvert.\n\n"
        "With --model a whole Mask R-CNN is converted: from engine torchvision to detectron2's\n"
        ".pth or .pkl, or from detectron2 to .safetensors for that engine. Both then find the\n"
        "same boxes, classes and masks.",
        epilog="examples:\n  rsa-detect convert runs/pretrain weights/rsa_r50.pkl\n"
        "  rsa-detect convert runs/pretrain weights/rsa_r50_c4.pkl --features C4\n"
        "  rsa-detect convert --model runs/detection/coco weights/mask_rcnn.pth\n"
        "  rsa-detect convert --model output/model_final.pth weights/mask_rcnn.safetensors",
    )
    parser.add_argument(
        "checkpoint",
        metavar="CHECKPOINT",
        type=checkpoint_place,
        help="run folder, checkpoint folder, backbone.safetensors, another project's file, "
        "zoo:NAME or hf://USER/NAME",
    )
    parser.add_argument(
        "out", metavar="OUT", type=Path, help="file to write; .pkl or .pth for a backbone"
    )
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--model", action="store_true", help="convert a whole detector")
    kind.add_argument(
        "--features",
        choices=get_args(RegionMaps),
        default="FPN",
        help="detector that a backbone is for: its names depend on it (default FPN)",
    )
    parser.set_defaults(command=_convert)


def _convert(arguments: argparse.Namespace) -> int:
    if arguments.model:
        return _exchange(arguments)
    from detection.exchange.convert import convert

    if isinstance(arguments.checkpoint, Path):
        refuse_input(arguments.out, arguments.checkpoint)
    done = convert(arguments.checkpoint, arguments.out, arguments.features)
    say(f"weights  {done.weights}")
    say(f"keys     {done.config}")
    for line in done.proof.lines():
        say(f"proof    {line}")
    say("detectron2 keys that these weights require:")
    say(yaml.safe_dump(done.config_tree, sort_keys=False).rstrip())
    return 0


def _exchange(arguments: argparse.Namespace) -> int:
    from detection.exchange.whole_detector import exchange
    from detection.job.run_checkpoints import detector_file

    refuse_input(arguments.out, detector_file(arguments.checkpoint))
    done = exchange(arguments.checkpoint, arguments.out)
    say(f"weights  {done.weights}")
    if done.config is not None:
        say(f"keys     {done.config}")
    say(f"used     {done.num_tensors} tensors, each once")
    say(f"unread   the background's rows of {', '.join(done.unread)}")
    say("proof    the file, read back, restores the detector bitwise")
    return 0
