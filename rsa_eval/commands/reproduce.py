"""``rsa-eval reproduce``: reproduce rows of the paper's tables."""

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from rsa_eval.campaigns.reproduction import CHANGEABLE, plan_trial
from rsa_eval.campaigns.trials import AnyTrial
from rsa_eval.commands.campaigns import HOW_IT_RUNS, add_budget, conclude
from rsa_eval.commands.outputs import check_output_folder
from rsa_eval.commands.subjects import split_words
from rsa_eval.paper.rows import ROWS, Detection, PaperRow, Pretraining, find_rows, select_rows
from rsa_pretrain.config import SPEED_SETTINGS
from rsa_pretrain.plumbing.command_line import Commands, Parser, say, whole_numbers
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.text_table import TableFormat

if TYPE_CHECKING:
    from rsa_eval.campaigns.campaign import Detect, Train
    from rsa_eval.campaigns.expected import CheckedResult
    from rsa_eval.campaigns.listing import Measure

_DESCRIPTION = f"""\
Reproduce every ROW with every seed: pretraining, kNN, linear evaluation by the paper's protocol,
with records. A row is TABLE/DATA_SET/NAME, or a prefix for all rows below it (table1/cifar10);
--list names them. Rows that show the same run in several tables share it.

Runs are stored in OUT/ROW/seed-S. Their small files (config.yaml, metrics.jsonl, machines.json,
records/*.json) are copied to RESULTS/ROW/seed-S. With a copy of OUT, another machine can resume,
with its own data.root and other settings that do not affect the result.

For speed, a row may also differ from its recipe in {" and ".join(sorted(SPEED_SETTINGS))}.
These change the result slightly: each record and table notes them, and a run is resumed only with
those it was started with.

{HOW_IT_RUNS}"""

_MEASURED = """\
GiB and hours: pretraining with one process on this machine, estimated from one step on generated
images. Memory is the GPU's, or without one the process's. Evaluation is not included."""
_NOT_MEASURED = "for GiB and hours of pretraining: --list --measure ROW"

_EXAMPLES = """\
examples:
  rsa-eval reproduce table1/cifar10/rsa-decay data.root=data
  rsa-eval reproduce table1/cifar10/rsa-decay data.root=data \\
      views.implementation=batched training.precision=bf16
  rsa-eval reproduce study/cifar10 --seeds 0,1,2 --budget-minutes 90 data.root=data
  rsa-eval reproduce study/scattered_digits --seeds 0,1,2 --check
  rsa-eval reproduce --list data.root=data
  rsa-eval reproduce --list --measure table1/cifar10/rsa-decay
  torchrun --nproc-per-node=8 -m rsa_eval reproduce table4/imagenet/rsa-100ep \\
      data.root=data/imagenet"""


def add(commands: Commands, train: "Train", detect: "Detect", measure: "Measure") -> None:
    """Add the command to the parser.

    Args:
        commands: The parser's commands.
        train: Trains one run.
        detect: Fine-tunes one detector.
        measure: Times a step of a run.
    """
    parser = commands.add_parser(
        "reproduce",
        description=_DESCRIPTION,
        epilog=f"{_EXAMPLES}\n\nsettings that may differ: {', '.join(CHANGEABLE)}",
    )
    _add_options(parser)
    parser.usage = "rsa-eval reproduce [options] [ROW ...] [section.key=value ...]"
    parser.set_defaults(
        takes_overrides=True,
        command=lambda arguments: (
            _list(arguments, measure) if arguments.list else _make(arguments, train, detect)
        ),
    )


def _add_options(parser: Parser) -> None:
    parser.add_argument(
        "--seeds", metavar="S,…", type=whole_numbers, default=[0], help="seeds of each (default: 0)"
    )
    parser.add_argument(
        "--out",
        metavar="DIR",
        type=Path,
        default=Path("runs/reproduce"),
        help="folder of the runs (default: %(default)s)",
    )
    parser.add_argument(
        "--results",
        metavar="DIR",
        type=Path,
        default=Path("results"),
        help="folder of the records and logs to keep (default: %(default)s)",
    )
    add_budget(parser)
    parser.add_argument(
        "--check",
        action="store_true",
        help="compare with the rows' expected results; a difference above the tolerance is an "
        "error",
    )
    parser.add_argument(
        "--list", action="store_true", help="list the rows with their settings and status"
    )
    parser.add_argument(
        "--measure",
        action="store_true",
        help="with --list ROW: measure memory and time of a training step on this machine",
    )
    parser.add_argument("--method", metavar="NAME", help="with --list: only this method.name")
    parser.add_argument(
        "--format", choices=get_args(TableFormat), help="with --list: table format (default: text)"
    )
    parser.add_argument(
        "--rows",
        metavar="YAML",
        type=Path,
        default=ROWS,
        help="recipes of the rows: a file like configs/paper.yaml (the default)",
    )


def _list(arguments: argparse.Namespace, measure: "Measure") -> int:
    rows, overrides = _read_words(arguments)
    if arguments.check:
        raise UserError("--list measures nothing that --check could compare; leave one out")
    if arguments.measure and not rows:
        raise UserError("--measure needs --list and the ROWs to measure")
    rows = rows or find_rows(arguments.rows)
    if arguments.method is not None:
        rows = [
            row
            for row in rows
            if isinstance(row.work, Pretraining) and row.work.config.method.name == arguments.method
        ]
        if not rows:
            raise UserError(f"--method '{arguments.method}' matches no row; see --list without it")
    from rsa_eval.campaigns.listing import RowListing

    listing = RowListing(arguments.out, overrides, measure if arguments.measure else None)
    say(listing.table(rows, arguments.format or "text"))
    if arguments.format is None:
        say(_MEASURED if arguments.measure else _NOT_MEASURED)
    return 0


def _make(arguments: argparse.Namespace, train: "Train", detect: "Detect") -> int:
    for name in ("measure", "method", "format"):
        if getattr(arguments, name):
            raise UserError(f"--{name} needs --list")
    rows, overrides = _read_words(arguments)
    check_output_folder(arguments.out)
    check_output_folder(arguments.results, "--results")
    if arguments.check and not any(row.expected for row in rows):
        raise UserError("no chosen row has expected results; leave --check out")
    trials = _plan(rows, arguments.seeds, arguments.out, overrides)
    from rsa_eval.campaigns.campaign import keep_small_files, run_trials
    from rsa_eval.campaigns.expected import check_expected

    outcome = run_trials(
        trials,
        arguments.budget_minutes,
        train=train,
        detect=detect,
        keep=partial(keep_small_files, results=arguments.results),
    )
    code = conclude(outcome)
    if code == 0:
        say(f"recorded: {len(trials)} of {len(trials)}, copied to '{arguments.results}'")
        if arguments.check:
            _compare(check_expected(rows, outcome.records))
    return code


def _compare(checked: Sequence["CheckedResult"]) -> None:
    from rsa_eval.campaigns.expected import expected_table

    say(expected_table(checked))
    outside = [f"{each.evaluation} of {each.row}" for each in checked if each.is_outside]
    if outside:
        raise UserError(
            f"{len(outside)} of {len(checked)} results are outside their tolerance: "
            f"{', '.join(outside)}; other versions, hardware or settings may be the reason, or a "
            "fault"
        )


def _read_words(arguments: argparse.Namespace) -> tuple[list[PaperRow], list[str]]:
    """Return the named rows and the overrides."""
    words, overrides = split_words(arguments.overrides)
    rows = select_rows(find_rows(arguments.rows), [str(word) for word in words])
    return rows, overrides


def _plan(
    rows: Sequence[PaperRow], seeds: Sequence[int], out: Path, overrides: Sequence[str]
) -> list[AnyTrial]:
    """Plan all rows seed by seed, each run once and detectors last."""
    here = {row.home: row for row in rows if row.work is not None}
    if not here:
        quoted = ", ".join(row.name for row in rows)
        raise UserError(
            f"the methods of these rows are not implemented here: {quoted}; see --list"
            if rows
            else "give at least one ROW; --list shows them"
        )
    ordered = sorted(here.values(), key=lambda row: isinstance(row.work, Detection))
    return [
        plan_trial(row, seed, out, overrides) for seed in dict.fromkeys(seeds) for row in ordered
    ]
