"""``rsa-detect export``: write a trained detector as one file for other runtimes."""

import argparse
from pathlib import Path

from detection.commands.image_options import add_detector_options, chosen_input
from rsa_pretrain.plumbing.command_line import Commands, say

_NAMES = ("onnx", "torchscript")


def add(commands: Commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "export",
        description="Write a detector of either engine, or of detectron2's own programs, as one\n"
        "file that runs without this toolkit: an image of any size in, its boxes, labels, scores\n"
        "and masks out. Pixels are 8-bit RGB; normalisation, padding and suppression are built\n"
        "in, resizing is not, but the file states the size. It also contains the categories, the\n"
        "numbers of proposals and detections and the weights' origin: as ONNX metadata_props, or\n"
        "in TorchScript as extra files of the same names. Before OUT gets its name, the file is\n"
        "run on three images and must match the engine: the same labels, boxes within 0.001\n"
        "pixels, scores and masks within 0.0001. TorchScript files run on the CPU.",
        epilog="examples:\n  rsa-detect export runs/detection/coco detector.onnx --to onnx\n"
        "  rsa-detect export runs/detection/coco detector.pt --to torchscript --images photos/",
    )
    parser.add_argument("detector", metavar="DETECTOR", type=Path, help="run folder or file")
    parser.add_argument("out", metavar="OUT", type=Path, help=".onnx or .pt file to write")
    parser.add_argument("--to", required=True, choices=_NAMES, help="target runtime")
    parser.add_argument(
        "--images",
        metavar="FOLDER|FILE",
        type=Path,
        nargs="+",
        default=[],
        help="prove the file on the first three of these, or on drawn images if there are fewer",
    )
    add_detector_options(parser)
    parser.set_defaults(command=_export)


def _export(arguments: argparse.Namespace) -> int:
    from detection.coco.categories import categories_of
    from detection.engines.torchvision.loading import load_detector
    from detection.export.exported_detector import ExportedDetector
    from detection.export.proof import proof_images
    from detection.export.write import DETECTOR_FORMATS, check_target, export_detector

    target, out = DETECTOR_FORMATS[arguments.to], arguments.out
    check_target(target, out)
    loaded = load_detector(arguments.detector)
    categories = categories_of(
        arguments.detector, loaded.num_classes, loaded.card.names, arguments.categories
    )
    exported = ExportedDetector(loaded, categories, chosen_input(arguments, loaded.card))
    images = proof_images(arguments.images, exported.input, loaded.card.rules)
    proof = export_detector(exported, target, out, images)
    say(f"written   {out}")
    say(f"proof     {proof.text()}")
    say(f"input     {exported.input_text()}")
    say(f"output    {exported.output_text()}")
    say(f"labels    {', '.join(str(entry['name']) for entry in categories)}")
    say(f"load      {target.advice.replace('OUT', str(out))}")
    return 0
