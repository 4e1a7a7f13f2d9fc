"""``rsa-eval suite``: run a suite of evaluations for several checkpoints."""

import argparse
from pathlib import Path

from rsa_eval.campaigns.settings import SuiteConfig, load_evaluations
from rsa_eval.commands.campaigns import HOW_IT_RUNS, add_budget, conclude
from rsa_eval.commands.given_features import refuse_features_option
from rsa_eval.commands.outputs import check_output_folder
from rsa_eval.commands.subjects import CHECKPOINTS, check_checkpoints, split_checkpoints
from rsa_pretrain.plumbing.atomic_files import write_text
from rsa_pretrain.plumbing.command_line import Commands, add_overrides, say
from rsa_pretrain.plumbing.config.files import load_config
from rsa_pretrain.plumbing.config.shipped import find_config

_TABLE_FILE = "suite.md"

_DESCRIPTION = f"""\
Run every evaluation of a suite for every CHECKPOINT, and print a table of the headline metrics.

{CHECKPOINTS}

The records are FOLDER/CHECKPOINT-HASH/records/EVALUATION.json, the table is FOLDER/suite.md, and
`rsa-eval report FOLDER` writes a page. Features are extracted once per checkpoint, transform and
set of images, and cached in FOLDER/features.

{HOW_IT_RUNS}"""

_EXAMPLES = """\
examples:
  rsa-eval suite runs/digits --random-init --suite digits
  rsa-eval suite runs/rsa runs/byol --suite cifar10 data.root=data --out runs/eval-cifar10
  torchrun --nproc-per-node=8 -m rsa_eval suite runs/rsa --suite imagenet \\
      data.root=data/imagenet
  rsa-eval suite runs/digits --suite digits evaluations.linear.settings.probe.base_lr='[10]'"""


def add(commands: Commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "suite",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
    )
    parser.add_argument(
        "--suite", metavar="YAML", type=Path, required=True, help="images and evaluations"
    )
    parser.add_argument(
        "--random-init",
        action="store_true",
        help="add random weights of the same networks, or of backbone.arch and backbone.stem",
    )
    parser.add_argument(
        "--out", metavar="FOLDER", type=Path, help="default: runs/eval-NAME, after the suite's file"
    )
    add_budget(parser)
    refuse_features_option(parser)
    parser.usage = "rsa-eval suite --suite YAML [options] [CHECKPOINT ...]"
    add_overrides(parser, SuiteConfig)
    parser.set_defaults(command=_suite)


def _suite(arguments: argparse.Namespace) -> int:
    checkpoints, overrides = split_checkpoints(arguments.overrides)
    suite = load_config(SuiteConfig, arguments.suite, overrides)
    check_checkpoints(checkpoints, arguments.random_init)
    out = arguments.out or Path("runs") / f"eval-{arguments.suite.stem}"
    check_output_folder(out)
    evaluations = load_evaluations(suite, find_config(arguments.suite).parent, out / "features")
    from rsa_eval.campaigns.campaign import run_trials
    from rsa_eval.campaigns.suite import plan_suite, suite_table

    trials = plan_suite(suite, evaluations, checkpoints, out, random_init=arguments.random_init)
    outcome = run_trials(trials, arguments.budget_minutes)
    if not outcome.stopped:
        # Several processes write the same text.
        write_text(out / _TABLE_FILE, f"{suite_table(trials, outcome, 'markdown')}\n")
        say(suite_table(trials, outcome))
        say(f"table: {out / _TABLE_FILE}")
    return conclude(outcome)
