"""``rsa-pretrain run``: pretrain a backbone."""

import argparse
from pathlib import Path

from rsa_pretrain.checkpoint import BACKBONE_FILE
from rsa_pretrain.command_line import Commands, add_overrides, say
from rsa_pretrain.config import PretrainConfig
from rsa_pretrain.config_files import load_config
from rsa_pretrain.data import open_images
from rsa_pretrain.errors import UserError
from rsa_pretrain.trainer import Trainer


def add(commands: Commands) -> None:
    """Add the command to the parser."""
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
