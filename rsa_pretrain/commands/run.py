"""``rsa-pretrain run``: pretrain a backbone."""

import argparse
from collections.abc import Callable
from pathlib import Path

from rsa_pretrain.config import PretrainConfig
from rsa_pretrain.plumbing.command_line import Commands, add_overrides, say
from rsa_pretrain.plumbing.config.files import load_config

TrainRun = Callable[..., int]


def add(commands: Commands, train: TrainRun) -> None:
    """Add the command to the parser.

    Args:
        commands: The parser's commands.
        train: Trains one run, as ``pretrain`` with its monitor.
    """
    parser = commands.add_parser(
        "run",
        description="Pretrain as CONFIG states. The run folder (output_dir) receives config.yaml,\n"
        "metrics.jsonl, tensorboard/, checkpoints/ and, at the end, backbone.safetensors.\n"
        "SIGTERM and Ctrl-C stop after the current step with a saved checkpoint.",
        epilog="examples:\n  rsa-pretrain run cifar10/rsa data.root=data training.epochs=20\n"
        "  rsa-pretrain run cifar10/rsa --extend runs/rsa output_dir=runs/rsa-400 \\\n"
        "      training.epochs=400",
    )
    parser.add_argument("config", metavar="CONFIG", type=Path, help="file or name of a config")
    parser.add_argument(
        "--resume",
        action="store_true",
        help="resume from the run folder's last checkpoint; start from scratch if it has none",
    )
    parser.add_argument(
        "--extend",
        metavar="RUN",
        type=Path,
        help="train a finished run further, in a new output_dir, to training.epochs in total with "
        "a new schedule; RUN is left unchanged",
    )
    parser.add_argument(
        "--profile",
        action="store_true",
        help="profile ten early steps into the run folder's profile/ (a trace for Perfetto or "
        "Chrome, a summary by part); training continues",
    )
    add_overrides(parser, PretrainConfig)
    parser.set_defaults(command=lambda arguments: _run(arguments, train))


def _run(arguments: argparse.Namespace, train: TrainRun) -> int:
    config = load_config(PretrainConfig, arguments.config, arguments.overrides)
    from rsa_pretrain.training.extension import open_parent
    from rsa_pretrain.training.finished_run import with_known_parent
    from rsa_pretrain.weights.checkpoint import BACKBONE_FILE

    backbone = config.output_dir / BACKBONE_FILE
    finished = backbone.exists()
    parent = None
    if arguments.extend is not None:
        parent = open_parent(arguments.extend, config)
        config = parent.extended(config)
    elif arguments.resume:
        config = with_known_parent(config)
    exit_code = train(config, resume=arguments.resume, profile=arguments.profile, parent=parent)
    if exit_code == 0:
        say(f"{'already finished' if finished else 'backbone'}: {backbone}")
    return exit_code
