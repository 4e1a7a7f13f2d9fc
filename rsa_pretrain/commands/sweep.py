"""``rsa-pretrain sweep``: a grid of runs, with every seed."""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from rsa_pretrain.command_line import Commands, add_overrides, say, whole_numbers
from rsa_pretrain.config import PretrainConfig
from rsa_pretrain.errors import UserError
from rsa_pretrain.sweep import Evaluate, Sweep, Train, plan_sweep, run_sweep
from rsa_pretrain.sweep_summary import (
    draw_summary,
    is_plottable,
    summarise,
    summary_table,
    write_summary,
)

FAILED_EXIT_CODE = 1


def add(commands: Commands, train: Train, evaluate: Evaluate, evaluators: Sequence[str]) -> None:
    """Add the command to the parser.

    Args:
        commands: The parser's commands.
        train: Trains one run.
        evaluate: Measures one finished run.
        evaluators: Names that ``evaluate`` takes; the first is the default.
    """
    parser = commands.add_parser(
        "sweep",
        help="run a config with several values and seeds",
        description="Run CONFIG once for every combination of the values listed with commas and\n"
        "every seed, evaluate each run, and give the mean ± sample standard deviation over the\n"
        "seeds. A single value is an override of all runs. The runs lie in\n"
        "DIR/key=value,…/seed-S; DIR/sweep.json holds every number, and DIR/sweep.png their plot\n"
        "if one key with numbers is swept.\n\n"
        "The same command again goes on where it stopped and skips what is finished. A run that\n"
        "breaks down does not stop the others; the exit code is then 1.",
        epilog="examples:\n"
        "  rsa-pretrain sweep configs/pretrain/cifar100/rsa_800ep.yaml "
        "method.beta_base=0,0.1,0.3,0.5\n"
        "  rsa-pretrain sweep configs/pretrain/cifar10/rsa_200ep.yaml --seeds 0,1,2",
    )
    parser.add_argument("config", metavar="CONFIG", type=Path, help="YAML file of the runs")
    parser.add_argument(
        "--seeds",
        metavar="S,…",
        type=whole_numbers,
        help="seeds of each (default: the config's own)",
    )
    parser.add_argument(
        "--out", metavar="DIR", type=Path, help="default: the config's output_dir with -sweep"
    )
    parser.add_argument(
        "--evaluator",
        metavar="NAME,…",
        default=evaluators[0],
        help=f"of {', '.join(evaluators)} (default: %(default)s)",
    )
    add_overrides(parser, PretrainConfig)
    parser.set_defaults(command=lambda arguments: _sweep(arguments, train, evaluate, evaluators))


def _sweep(
    arguments: argparse.Namespace, train: Train, evaluate: Evaluate, known: Sequence[str]
) -> int:
    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise UserError("a sweep is one process; start its runs one by one under torchrun instead")
    evaluators = list(dict.fromkeys(arguments.evaluator.split(",")))
    unknown = [name for name in evaluators if name not in known]
    if unknown:
        raise UserError(f"--evaluator '{unknown[0]}' is none of {', '.join(known)}")
    sweep = plan_sweep(arguments.config, arguments.overrides, arguments.seeds, arguments.out)
    outcome = run_sweep(sweep, evaluators, train, evaluate)
    if outcome.stopped is not None:
        say("the sweep stopped; the same command goes on from there")
        return outcome.stopped
    summary = summarise(sweep, outcome)
    write_summary(summary, sweep.folder / "sweep.json")
    say(summary_table(summary))
    say(f"sweep: {sweep.folder / 'sweep.json'}")
    if is_plottable(summary):
        draw_summary(summary, sweep.folder / "sweep.png")
        say(f"plot: {sweep.folder / 'sweep.png'}")
    return _report_failures(sweep, outcome.failures)


def _report_failures(sweep: Sweep, failures: dict[Path, str]) -> int:
    for folder, message in failures.items():
        say(f"failed: {folder}: {message}")
    if failures:
        say(f"{len(failures)} of {len(sweep.runs)} runs failed; the same command tries them again")
    return FAILED_EXIT_CODE if failures else 0
