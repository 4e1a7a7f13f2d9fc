"""``rsa-pretrain run``: pretrain a backbone."""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from rsa_pretrain.checkpoint import BACKBONE_FILE
from rsa_pretrain.command_line import Commands, add_overrides, say
from rsa_pretrain.config import PretrainConfig
from rsa_pretrain.config_files import load_config
from rsa_pretrain.data import AnySplit, open_images
from rsa_pretrain.data_sets.folders import refuse_among_images
from rsa_pretrain.device import resolve_device
from rsa_pretrain.distributed import process_group
from rsa_pretrain.errors import UserError
from rsa_pretrain.extension import Parent, open_parent
from rsa_pretrain.finished_run import refuse_another_finished_run, with_known_parent
from rsa_pretrain.image_set import ImageSet
from rsa_pretrain.profiling import PROFILED_STEPS, SKIPPED_STEPS, WARMUP_STEPS
from rsa_pretrain.shards import ShardSet
from rsa_pretrain.trainer import Evaluate, Trainer

_FIRST_PROFILED = SKIPPED_STEPS + WARMUP_STEPS + 1
_LAST_PROFILED = SKIPPED_STEPS + WARMUP_STEPS + PROFILED_STEPS

MakeEvaluate = Callable[[PretrainConfig, ImageSet, ImageSet, torch.device], Evaluate]


def add(commands: Commands, make_evaluate: MakeEvaluate) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "run",
        help="pretrain a backbone",
        description="Pretrain as CONFIG says. The run folder (output_dir) receives config.yaml,\n"
        "metrics.jsonl, tensorboard/, checkpoints/ and, at the end, backbone.safetensors.\n"
        "SIGTERM and Ctrl-C stop after the current step with a saved checkpoint.",
        epilog="examples:\n  rsa-pretrain run configs/pretrain/cifar10/rsa_200ep.yaml "
        "data.root=data training.epochs=20\n  rsa-pretrain run "
        "configs/pretrain/cifar10/rsa_200ep.yaml --extend runs/rsa \\\n"
        "      output_dir=runs/rsa-400 training.epochs=400",
    )
    parser.add_argument("config", metavar="CONFIG", type=Path, help="YAML file of the run")
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on from the run folder's last checkpoint; start anew if it has none",
    )
    parser.add_argument(
        "--extend",
        metavar="RUN",
        type=Path,
        help="train a finished run further, in a new output_dir, to training.epochs in all with a "
        "new schedule; RUN is left unchanged",
    )
    parser.add_argument(
        "--profile",
        action="store_true",
        help=f"write where the time of steps {_FIRST_PROFILED} to {_LAST_PROFILED} goes to the run "
        "folder's profile/ (a trace for Perfetto or Chrome, a summary by part); training goes on",
    )
    add_overrides(parser, PretrainConfig)
    parser.set_defaults(command=partial(_run, make_evaluate=make_evaluate))


def pretrain(
    config: PretrainConfig,
    *,
    resume: bool,
    make_evaluate: MakeEvaluate,
    profile: bool = False,
    parent: Parent | None = None,
) -> int:
    """Train a run, alone or with the processes that the launcher started, to its end.

    Args:
        config: The run.
        resume: Go on from the run folder's last checkpoint, if it has one; a finished run is only
            compared with ``config``.
        make_evaluate: Builds the measure taken every ``monitor.knn_every_epochs`` from the run
            and its held-out images.
        profile: Look where the time of some early steps goes.
        parent: The finished run to extend, if the run folder has no checkpoint.

    Returns:
        0, or 128 + the number of the signal that stopped it.

    Raises:
        UserError: As ``Trainer``.
    """
    refuse_among_images(config.data, config.output_dir)
    if resume and (config.output_dir / BACKBONE_FILE).exists():
        refuse_another_finished_run(config, lambda: _open_images(config)[0].fingerprint())
        return 0
    device = resolve_device(config.training.device)
    with process_group(device):
        images, held_out = _open_images(config)
        evaluate = None
        if held_out is not None:
            assert isinstance(images, ImageSet), "a stream holds nothing out"
            evaluate = make_evaluate(config, images, held_out, device)
        return Trainer(
            config, images, resume=resume, evaluate=evaluate, profile=profile, parent=parent
        ).run()


def _open_images(config: PretrainConfig) -> tuple[ImageSet | ShardSet, ImageSet | None]:
    """Open the training images, and those that the monitor holds out of them."""
    # Supervised training needs every image labelled; the others take all there are.
    split: AnySplit = "train" if config.method.name == "supervised" else "pretrain"
    images = open_images(config.data, split)
    if config.monitor.knn_every_epochs is None:
        return images, None
    if isinstance(images, ShardSet):
        raise UserError(
            "monitor.knn_every_epochs holds images out, which a stream of shards cannot; "
            "set it to null"
        )
    return images.hold_out(config.monitor.num_held_out_images, config.seed)


def _run(arguments: argparse.Namespace, make_evaluate: MakeEvaluate) -> int:
    config = load_config(PretrainConfig, arguments.config, arguments.overrides)
    backbone = config.output_dir / BACKBONE_FILE
    finished = backbone.exists()
    if finished and not arguments.resume:
        raise UserError(f"'{config.output_dir}' holds a finished run; choose another output_dir")
    parent = None
    if arguments.extend is not None:
        parent = open_parent(arguments.extend, config)
        config = parent.extended(config)
    elif arguments.resume:
        config = with_known_parent(config)
    exit_code = pretrain(
        config,
        resume=arguments.resume,
        make_evaluate=make_evaluate,
        profile=arguments.profile,
        parent=parent,
    )
    if exit_code == 0:
        say(f"{'already finished' if finished else 'backbone'}: {backbone}")
    return exit_code
