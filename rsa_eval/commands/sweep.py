"""``rsa-pretrain sweep``: train and evaluate a grid of runs over seeds."""

import argparse
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rsa_eval.campaigns.sweep import plan_sweep, sweep_table
from rsa_eval.commands.campaigns import HOW_IT_RUNS, add_budget, conclude
from rsa_eval.evaluators import EVALUATORS
from rsa_pretrain.config import PretrainConfig
from rsa_pretrain.plumbing.command_line import Commands, add_overrides, say, whole_numbers

if TYPE_CHECKING:
    from rsa_eval.campaigns.campaign import Train

_DESCRIPTION = f"""\
Run CONFIG once for every combination of comma-separated values and every seed, evaluate each run,
and print the mean ± sample standard deviation over the seeds. A single value overrides all runs.
The runs are stored in DIR/key=value,…/seed-S, with records/ inside; `rsa-eval report DIR` writes a
page.

{HOW_IT_RUNS}"""

_EXAMPLES = """\
examples:
  rsa-pretrain sweep cifar10/rsa --seeds 0,1,2 --evaluator knn,linear data.root=data
  rsa-pretrain sweep cifar100/rsa training.epochs=800 method.beta_base=0,0.1,0.3,0.5 data.root=data
  torchrun --nproc-per-node=8 -m rsa_pretrain sweep imagenet/rsa method.beta_base=0,0.3 \\
      data.root=data/imagenet"""


def add(commands: Commands, train: "Train") -> None:
    """Add the command to the parser.

    Args:
        commands: The parser's commands.
        train: Trains one run.
    """
    parser = commands.add_parser(
        "sweep",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
    )
    parser.add_argument("config", metavar="CONFIG", type=Path, help="file or name of a config")
    parser.add_argument(
        "--seeds",
        metavar="S,…",
        type=whole_numbers,
        help="seeds of each (default: the config's)",
    )
    parser.add_argument(
        "--out", metavar="DIR", type=Path, help="default: the config's output_dir plus -sweep"
    )
    parser.add_argument(
        "--evaluator",
        metavar="NAME,…",
        default="knn",
        help=f"any of {', '.join(EVALUATORS)} (default: %(default)s)",
    )
    add_budget(parser)
    add_overrides(parser, PretrainConfig)
    parser.set_defaults(command=partial(_sweep, train=train))


def _sweep(arguments: argparse.Namespace, train: "Train") -> int:
    evaluators = list(dict.fromkeys(arguments.evaluator.split(",")))
    sweep = plan_sweep(
        arguments.config, arguments.overrides, arguments.seeds, arguments.out, evaluators
    )
    from rsa_eval.campaigns.campaign import run_trials

    outcome = run_trials(sweep.trials, arguments.budget_minutes, train=train)
    if not outcome.stopped:
        say(sweep_table(sweep, outcome))
        say(f"runs: {sweep.folder}")
    return conclude(outcome)
