"""``rsa-eval suite``: every evaluation of a suite for several checkpoints."""

import argparse
from pathlib import Path

from rsa_eval.commands.outputs import check_output_folder
from rsa_eval.commands.words import split_words
from rsa_eval.suite import failure_lines, plan_targets, run_suite, suite_table
from rsa_eval.suite_config import SuiteConfig, load_evaluations
from rsa_pretrain.atomic_files import write_text
from rsa_pretrain.command_line import Commands, add_overrides, say
from rsa_pretrain.config_files import load_config
from rsa_pretrain.device import resolve_device
from rsa_pretrain.distributed import is_main, process_group
from rsa_pretrain.errors import UserError
from rsa_pretrain.shipped_configs import find_config

_TABLE_FILE = "suite.md"

_DESCRIPTION = """\
Evaluate every CHECKPOINT by every evaluation of a suite, and print a table of the headlines.

CHECKPOINT is what the other commands take: a run folder, a checkpoint folder, or a file of this
or another project. The records are FOLDER/CHECKPOINT-HASH/records/EVALUATION.json, the table is
FOLDER/suite.md, and `rsa-eval report FOLDER` draws up a page. Features are extracted once per
checkpoint, transform and set of images, and kept in FOLDER/features.

The same command again goes on where it stopped and skips what is recorded for the same weights
and settings. An evaluation that fails stops no other; the exit code is then 2. Under torchrun all
processes share each evaluation, and a failure ends the suite."""

_EXAMPLES = """\
examples:
  rsa-eval suite runs/digits --random-init --suite configs/eval/digits.yaml
  rsa-eval suite runs/rsa runs/byol --suite configs/eval/cifar10.yaml data.root=data/cifar10 \\
      --out runs/eval-cifar10
  torchrun --nproc-per-node=8 -m rsa_eval suite runs/rsa --suite configs/eval/imagenet.yaml
  rsa-eval suite runs/digits --suite configs/eval/digits.yaml \\
      evaluations.linear.settings.probe.base_lr='[10]'"""


def add(commands: Commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "suite",
        help="evaluate several checkpoints in several ways",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
    )
    parser.add_argument(
        "--suite", metavar="YAML", type=Path, required=True, help="data and evaluations"
    )
    parser.add_argument(
        "--random-init",
        action="store_true",
        help="add random weights of the same networks, or of backbone.arch and backbone.stem",
    )
    parser.add_argument(
        "--out", metavar="FOLDER", type=Path, help="default: runs/eval-NAME of the suite's file"
    )
    parser.usage = "rsa-eval suite --suite YAML [--random-init] [--out FOLDER] [CHECKPOINT ...]"
    add_overrides(parser, SuiteConfig)
    parser.set_defaults(command=_suite)


def _suite(arguments: argparse.Namespace) -> int:
    checkpoints, overrides = split_words(arguments.overrides)
    suite = load_config(SuiteConfig, arguments.suite, overrides)
    out = arguments.out or Path("runs") / f"eval-{arguments.suite.stem}"
    check_output_folder(out)
    evaluations = load_evaluations(suite, find_config(arguments.suite).parent, out / "features")
    targets = plan_targets(suite, checkpoints, random_init=arguments.random_init)
    with process_group(resolve_device(suite.device)):
        outcome = run_suite(targets, evaluations, out)
        if is_main():
            table = suite_table(outcome, targets, evaluations, "markdown")
            write_text(out / _TABLE_FILE, f"{table}\n")
    say(suite_table(outcome, targets, evaluations))
    say(f"table: {out / _TABLE_FILE}")
    if outcome.failures:
        raise UserError(
            f"{len(outcome.failures)} of {len(targets) * len(evaluations)} evaluations failed; the "
            f"same command tries them again: {'; '.join(failure_lines(outcome))}"
        )
    return 0
