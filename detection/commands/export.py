"""``rsa-detect export``: a trained detector as one file that other runtimes run."""

import argparse
from pathlib import Path

from rsa_pretrain.command_line import Commands, positive, say

_NAMES = ("onnx", "torchscript")


def add(commands: Commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "export",
        help="write a trained detector for ONNX Runtime or TorchScript",
        description="Write a detector as one file that runs without this toolkit: an image of any\n"
        "size in, its boxes, labels, scores and masks out. Normalisation, padding and suppression\n"
        "are inside; resizing is not, and the file tells the size. It also holds the categories\n"
        "and where the weights came from: as ONNX metadata_props, or in TorchScript as extra\n"
        "files of the same names. Before OUT takes its name, the file is run on three images and\n"
        "must find what the engine finds: the same labels, boxes within 0.001 pixels, scores\n"
        "within 0.00001 and masks within 0.0001. TorchScript files run on the CPU.",
        epilog="examples:\n  rsa-detect export runs/detection/coco detector.onnx --to onnx\n"
        "  rsa-detect export runs/detection/coco detector.pt --to torchscript --images photos/",
    )
    parser.add_argument("detector", metavar="DETECTOR", type=Path, help="run folder or file")
    parser.add_argument("out", metavar="OUT", type=Path, help=".onnx or .pt file to write")
    parser.add_argument("--to", required=True, choices=_NAMES, help="what is to run it")
    parser.add_argument(
        "--images",
        metavar="FOLDER|FILE",
        type=Path,
        nargs="+",
        default=[],
        help="prove the file on the first three of these (default: drawn images)",
    )
    parser.add_argument(
        "--categories",
        metavar="FILE.json",
        type=Path,
        help="COCO-format file with the detector's categories (default: those of its run, else "
        "its labels, from 1)",
    )
    for option, meaning in (
        ("--short-side", "short side of the input, in pixels (default: the detector's)"),
        ("--max-side", "the long side never exceeds this (default: the detector's)"),
    ):
        parser.add_argument(option, metavar="N", type=positive, help=meaning)
    parser.set_defaults(command=_export)


def _export(arguments: argparse.Namespace) -> int:
    # Imported here: the other commands do without torchvision's detectors and the exporters.
    from detection.export.proof import proof_images
    from detection.export.source import read_source
    from detection.export.write import TARGETS, check_target, export_detector

    target = TARGETS[arguments.to]
    check_target(target, arguments.out)
    sides = (arguments.short_side, arguments.max_side)
    source = read_source(arguments.detector, arguments.categories, sides)
    images = proof_images(arguments.images, source.input)
    proof = export_detector(source, target, arguments.out, images)
    names = ", ".join(str(entry["name"]) for entry in source.categories)
    say(f"written   {arguments.out}")
    say(f"proof     {proof.text()}")
    say(f"input     {source.input_text()}")
    say(f"output    {source.output_text()}")
    say(f"labels    {names}")
    say(f"load      {target.advice.replace('OUT', str(arguments.out))}")
    return 0
