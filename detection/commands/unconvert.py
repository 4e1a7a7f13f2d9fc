"""``rsa-detect unconvert``: extract the backbone of a detectron2 file or a trained detector."""

import argparse
from pathlib import Path

from rsa_pretrain.plumbing.command_line import Commands, say


def add(commands: Commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "unconvert",
        description="Write the ResNet of a detectron2 file, or of a detector trained by either\n"
        "engine, as a checkpoint of this toolkit, so that the fine-tuned backbone can be probed.\n"
        "No code of the file is run. Colour order, strides and pixel statistics come from the\n"
        "file, or from the config that detectron2 wrote beside it; a network other than\n"
        "torchvision's is refused.",
        epilog="examples:\n"
        "  rsa-detect unconvert runs/detection/mask_rcnn_R_50_FPN_1x backbone.safetensors\n"
        "  rsa-detect unconvert output/model_final.pth backbone.safetensors\n"
        "  rsa-eval knn backbone.safetensors --config data/imagefolder --out knn.json",
    )
    parser.add_argument(
        "file",
        metavar="FILE",
        type=Path,
        help="weights (.pkl, .pth), a detector's checkpoint, or a run folder",
    )
    parser.add_argument("out", metavar="OUT.safetensors", type=Path, help="file to write")
    parser.add_argument(
        "--config",
        metavar="CONFIG.yaml",
        type=Path,
        help="detectron2's config of FILE (default: config.yaml beside it, if FILE does not "
        "state its input)",
    )
    parser.set_defaults(command=_unconvert)


def _unconvert(arguments: argparse.Namespace) -> int:
    from detection.exchange.unconvert import unconvert

    done = unconvert(arguments.file, arguments.out, arguments.config)
    metadata = done.metadata
    say(f"taken    {metadata.arch} of {done.source}")
    for line in done.proof.lines():
        say(f"proof    {line}")
    say(f"pixels   mean {metadata.mean}, std {metadata.std}, RGB")
    say(f"written  {arguments.out}")
    return 0
