"""The command ``rsa-detect``."""

import sys

from detection.commands import (
    config,
    convert,
    data_check,
    evaluate,
    export,
    export_config,
    import_annotations,
    init,
    predict,
    toy,
    train,
    unconvert,
    visualize,
)
from rsa_pretrain.command_line import Parser, run_command

DESCRIPTION = "Transfer of a pretrained backbone to Mask R-CNN on COCO-format data."


def main(argv: list[str] | None = None) -> int:
    """Run ``rsa-detect`` and return its exit code."""
    return run_command(lambda: _dispatch(sys.argv[1:] if argv is None else argv))


def _dispatch(argv: list[str]) -> int:
    parser = Parser(prog="rsa-detect", description=DESCRIPTION)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    import_annotations.add(commands)
    init.add(commands)
    config.add(commands)
    data_check.add(commands)
    train.add(commands)
    predict.add(commands)
    evaluate.add(commands)
    visualize.add(commands)
    export.add(commands)
    export_config.add(commands)
    convert.add(commands)
    unconvert.add(commands)
    toy.add(commands)
    arguments = parser.parse_args(argv)
    return int(arguments.command(arguments))


if __name__ == "__main__":
    sys.exit(main())
