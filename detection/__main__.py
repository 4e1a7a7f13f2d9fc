"""The command ``rsa-detect``."""

import sys

from rsa_pretrain.plumbing.command_line import Command, Commands, Program


def _add_config(commands: Commands) -> None:
    from detection.recipe.recipe import Recipe
    from rsa_pretrain.plumbing.config.command import add_config_command

    add_config_command(
        commands, Recipe, "rsa-detect config mask_rcnn_R_50_FPN_1x solver.batch_size=8"
    )


PROGRAM = Program(
    "rsa-detect",
    "Transfer of a pretrained backbone to Mask R-CNN on COCO-format data.",
    "detection.commands",
    (
        Command(
            "import-annotations",
            "convert LabelMe, PASCAL VOC or YOLO annotations to COCO format",
        ),
        Command("init", "write a config fitted to your own annotated images"),
        Command("config", "print a config's settings, each with its source", _add_config),
        Command("data-check", "check annotated images before training on them"),
        Command("train", "fine-tune and evaluate Mask R-CNN"),
        Command("predict", "run a trained detector on images"),
        Command("evaluate", "compute average precision of a file of predictions"),
        Command("visualize", "draw predictions beside annotations"),
        Command("export", "write a trained detector for ONNX Runtime or TorchScript"),
        Command("export-config", "write a recipe for detectron2's own train_net.py"),
        Command("convert", "convert weights to detectron2, or a detector from it"),
        Command("unconvert", "extract the backbone of a detectron2 file or a trained detector"),
        Command("download", "download PASCAL VOC's published images"),
        Command("toy", "draw a small COCO-format data set of shapes"),
    ),
)
main = PROGRAM.run


if __name__ == "__main__":
    sys.exit(main())
