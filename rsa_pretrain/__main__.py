"""The command ``rsa-pretrain``."""

import argparse
import sys
from pathlib import Path

from rsa_pretrain.checkpoint import BACKBONE_FILE
from rsa_pretrain.command_line import Parser, add_overrides, run_command, say
from rsa_pretrain.config import PretrainConfig
from rsa_pretrain.config_files import load_config
from rsa_pretrain.data import open_images
from rsa_pretrain.errors import UserError
from rsa_pretrain.preview import draw_preview
from rsa_pretrain.trainer import Trainer


def main(argv: list[str] | None = None) -> int:
    """Run ``rsa-pretrain`` and return its exit code."""
    return run_command(lambda: _dispatch(sys.argv[1:] if argv is None else argv))


def _dispatch(argv: list[str]) -> int:
    parser = Parser(prog="rsa-pretrain", description="Self-supervised pretraining of ResNets.")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_run(commands)
    _add_preview(commands)
    arguments = parser.parse_args(argv)
    return int(arguments.command(arguments))


def _add_run(commands: "argparse._SubParsersAction[Parser]") -> None:
    parser = commands.add_parser(
        "run",
        help="pretrain a backbone",
        description="Pretrain as CONFIG says. The run folder (output_dir) receives config.yaml,\n"
        "metrics.jsonl, tensorboard/, checkpoints/ and, at the end, backbone.safetensors.\n"
        "SIGTERM and Ctrl-C stop after the current step with a saved checkpoint.",
        epilog="example:\n  rsa-pretrain run configs/pretrain/cifar10/rsa_200ep.yaml "
        "data.root=data training.epochs=20",
    )
    parser.add_argument("config", metavar="CONFIG", type=Path, help="YAML file of the run")
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on from the run folder's last checkpoint; start anew if it has none",
    )
    add_overrides(parser, PretrainConfig)
    parser.set_defaults(command=_run)


def _add_preview(commands: "argparse._SubParsersAction[Parser]") -> None:
    parser = commands.add_parser(
        "preview",
        help="draw the views of some training images",
        description="Draw training images beside their weak and aggressive views.",
    )
    parser.add_argument("config", metavar="CONFIG", type=Path, help="YAML file of the run")
    parser.add_argument("out", metavar="OUT.png", type=Path, help="picture to write")
    parser.add_argument(
        "--num-images", metavar="N", type=_positive, default=8, help="rows (default 8)"
    )
    add_overrides(parser, PretrainConfig)
    parser.set_defaults(command=_preview)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"expected a whole number above 0, found '{text}'")
    return int(text)


def _run(arguments: argparse.Namespace) -> int:
    config = load_config(PretrainConfig, arguments.config, arguments.overrides)
    backbone = config.output_dir / BACKBONE_FILE
    if backbone.exists():
        if not arguments.resume:
            raise UserError(
                f"'{config.output_dir}' holds a finished run; choose another output_dir"
            )
        say(f"already finished: {backbone}")
        return 0
    images = open_images(config.data, "train")
    exit_code = Trainer(config, images, resume=arguments.resume).run()
    if exit_code == 0:
        say(f"backbone: {backbone}")
    return exit_code


def _preview(arguments: argparse.Namespace) -> int:
    if arguments.out.suffix.lower() != ".png":
        raise UserError(f"'{arguments.out}' should end in .png")
    config = load_config(PretrainConfig, arguments.config, arguments.overrides)
    images = open_images(config.data, "train")
    draw_preview(config, images, arguments.out, arguments.num_images)
    say(f"views: {arguments.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
