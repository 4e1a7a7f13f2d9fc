"""The command ``rsa-detect``."""

import sys

from rsa_pretrain.command_line import Command, Program

PROGRAM = Program(
    "rsa-detect",
    "Transfer of a pretrained backbone to Mask R-CNN on COCO-format data.",
    "detection.commands",
    (
        Command(
            "import-annotations",
            "bring annotations of LabelMe, PASCAL VOC or YOLO into COCO format",
        ),
        Command("init", "write a config fitted to your own annotated images"),
        Command("config", "print what a config resolves to, with the file of each value"),
        Command("data-check", "check a COCO-format data set before training on it"),
        Command("train", "fine-tune and evaluate Mask R-CNN"),
        Command("predict", "what a trained detector finds in images"),
        Command("evaluate", "average precision of a file of predictions"),
        Command("visualize", "draw predictions beside what is annotated"),
        Command("export", "write a trained detector for ONNX Runtime or TorchScript"),
        Command("export-config", "write a recipe for detectron2's own train_net.py"),
        Command("convert", "write detectron2 weights, or read a detector from them"),
        Command("unconvert", "take a trunk back from detectron2, or out of a trained detector"),
        Command("toy", "draw a small COCO-format data set of shapes"),
    ),
)
main = PROGRAM.run


if __name__ == "__main__":
    sys.exit(main())
