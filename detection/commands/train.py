"""``rsa-detect train``: fine-tune and evaluate Mask R-CNN."""

import argparse
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from detection.recipe.recipe import PREDICTIONS_FILE, RECORD_FILE, Recipe
from rsa_pretrain.plumbing.command_line import (
    Commands,
    Parser,
    add_overrides,
    checkpoint_place,
    positive,
    say,
)
from rsa_pretrain.plumbing.config.files import load_config
from rsa_pretrain.plumbing.errors import UserError

if TYPE_CHECKING:
    from rsa_eval.records.record import Record


def add(commands: Commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "train",
        description="Train Mask R-CNN as CONFIG says, then evaluate boxes and masks.\n"
        f"The run folder (output_dir) receives {RECORD_FILE} and {PREDICTIONS_FILE}; the\n"
        "newest of its checkpoints/ is the trained detector: the last one of engine torchvision,\n"
        "model_final.pth of detectron2. SIGTERM and Ctrl-C save a checkpoint first.\n"
        "With training.evaluate_every_iterations=N, the weights with the highest AP of all\n"
        "evaluations are stored beside them as best/ or model_best.pth; the record is of the last.",
    )
    parser.add_argument("config", metavar="CONFIG", type=Path, help="file or name of a config")
    trunk = parser.add_mutually_exclusive_group(required=True)
    trunk.add_argument(
        "--checkpoint",
        metavar="CHECKPOINT",
        type=checkpoint_place,
        help="pretrained backbone to start from; zoo:NAME and hf://USER/NAME are downloaded",
    )
    trunk.add_argument(
        "--random-init", action="store_true", help="start from random weights: the baseline"
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="continue the run in output_dir where it stopped; start a new one if there is none",
    )
    _add_processes(parser)
    add_overrides(parser, Recipe)
    parser.set_defaults(command=_train)


def _add_processes(parser: Parser) -> None:
    group = parser.add_argument_group(
        "several processes",
        "Start the command with torchrun, or let detectron2's launch start the processes:",
    )
    group.add_argument(
        "--num-gpus", metavar="N", type=positive, help="processes on this machine, one per GPU"
    )
    group.add_argument("--num-machines", metavar="N", type=positive, help="(default 1)")
    group.add_argument(
        "--machine-rank", metavar="N", type=int, help="rank of this machine (default 0)"
    )
    group.add_argument(
        "--dist-url",
        metavar="URL",
        help="rendezvous, tcp://HOST:PORT of the first machine (default: a free port)",
    )


def _train(arguments: argparse.Namespace) -> int:
    if arguments.num_gpus is None:
        for option in ("num_machines", "machine_rank", "dist_url"):
            if getattr(arguments, option) is not None:
                raise UserError(f"--{option.replace('_', '-')} needs --num-gpus")
        return _train_here(arguments)
    recipe = load_config(Recipe, arguments.config, arguments.overrides)
    if recipe.engine != "detectron2":
        raise UserError(f"--num-gpus is detectron2's; start engine {recipe.engine} with torchrun")
    from detection.engines import load_engine

    load_engine(recipe.engine)
    from detection.engines.detectron2.launch import Processes, launch_processes

    processes = Processes(
        num_gpus=arguments.num_gpus,
        num_machines=arguments.num_machines or 1,
        machine_rank=arguments.machine_rank or 0,
        dist_url=arguments.dist_url or "auto",
    )
    on_cpu = recipe.training.device == "cpu"
    return launch_processes(processes, partial(_train_here, arguments), on_cpu=on_cpu)


def _train_here(arguments: argparse.Namespace) -> int:
    recipe = load_config(Recipe, arguments.config, arguments.overrides)
    from detection.job.trunk import load_trunk, random_trunk
    from detection.run import run_recipe

    if arguments.random_init:
        trunk = random_trunk(recipe.model, recipe.seed)
    else:
        trunk = load_trunk(arguments.checkpoint, recipe.model)
    exit_code, record = run_recipe(recipe, trunk, resume=arguments.resume)
    if exit_code != 0:
        say(f"stopped by a signal; continue with --resume ({recipe.output_dir})")
    elif record is not None:
        _report(record, recipe.output_dir)
    return exit_code


def _report(record: "Record", run_dir: Path) -> None:
    values: dict[str, list[str]] = {}
    for name, metric in record.metrics.items():
        kind, _, short = name.rpartition("_")
        values.setdefault(kind, []).append(f"{short} {metric.value:.1f}")
    for kind, shown in values.items():
        say(f"{kind}  " + "  ".join(shown))
    for deviation in record.deviations:
        say(f"note  {deviation}")
    say(f"record  {run_dir / RECORD_FILE}")
    found = record.details
    if "best_file" in found:
        say(
            f"best  {run_dir / found['best_file']}  iteration {found['best_step']}, "
            f"{found['best_metric']} {found['best_AP']:.1f} ({found['best_note']})"
        )
