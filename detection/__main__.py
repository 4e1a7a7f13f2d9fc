"""The command ``rsa-detect``."""

import sys

from rsa_pretrain.command_line import Command, run_program

DESCRIPTION = "Transfer of a pretrained backbone to Mask R-CNN on COCO-format data."
COMMANDS = (
    Command(
        "import-annotations",
        "bring annotations of LabelMe, PASCAL VOC or YOLO into COCO format",
        "detection.commands.import_annotations",
    ),
    Command(
        "init", "write a config fitted to your own annotated images", "detection.commands.init"
    ),
    Command(
        "config",
        "print what a config resolves to, with the file of each value",
        "detection.commands.config",
    ),
    Command(
        "data-check",
        "check a COCO-format data set before training on it",
        "detection.commands.data_check",
    ),
    Command("train", "fine-tune and evaluate Mask R-CNN", "detection.commands.train"),
    Command("predict", "what a trained detector finds in images", "detection.commands.predict"),
    Command(
        "evaluate", "average precision of a file of predictions", "detection.commands.evaluate"
    ),
    Command(
        "visualize", "draw predictions beside what is annotated", "detection.commands.visualize"
    ),
    Command(
        "export",
        "write a trained detector for ONNX Runtime or TorchScript",
        "detection.commands.export",
    ),
    Command(
        "export-config",
        "write a recipe for detectron2's own train_net.py",
        "detection.commands.export_config",
    ),
    Command(
        "convert",
        "write detectron2 weights, or read a detector from them",
        "detection.commands.convert",
    ),
    Command(
        "unconvert",
        "take a trunk back from detectron2, or out of a trained detector",
        "detection.commands.unconvert",
    ),
    Command("toy", "draw a small COCO-format data set of shapes", "detection.commands.toy"),
)


def main(argv: list[str] | None = None) -> int:
    """Run ``rsa-detect`` and return its exit code."""
    return run_program("rsa-detect", DESCRIPTION, COMMANDS, argv)


if __name__ == "__main__":
    sys.exit(main())
